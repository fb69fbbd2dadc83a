//! A call of the query protocol: parameters in, XML or a refusal out.

use std::fmt::Write as _;

use super::super::message::{Request, Response};

/// The parameters of a call, as a tree: `A.member.2.B=c` is `c` at `B` in the second member of the list `A`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) text: String,
    pub(super) children: Vec<(String, Node)>,
}

impl Node {
    pub(super) fn of(request: &Request) -> Self {
        let mut root = Self::default();
        for (name, value) in request.form() {
            let mut node = &mut root;
            let mut parts = name.split('.').peekable();
            while let Some(part) = parts.next() {
                // The number belongs to its member's name: members come in any order.
                let is_listed = ["member", "entry"].contains(&part);
                let number = parts.next_if(|_| is_listed);
                let name = number.map_or(part.to_owned(), |number| format!("{part}.{number}"));
                node = node.child_or_new(&name);
            }
            node.text = value;
        }
        root
    }

    fn child_or_new(&mut self, name: &str) -> &mut Self {
        let place = self.children.iter().position(|(known, _)| known == name);
        let place = place.unwrap_or_else(|| {
            self.children.push((name.to_owned(), Self::default()));
            self.children.len() - 1
        });
        &mut self.children[place].1
    }

    pub(super) fn leaf(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            children: Vec::new(),
        }
    }

    pub(super) fn at(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |node, name| {
            let mut children = node.children.iter();
            children.find_map(|(known, child)| (known == name).then_some(child))
        })
    }

    pub(super) fn text_at(&self, path: &str) -> Option<&str> {
        self.at(path).map(|node| node.text.as_str())
    }

    /// Puts something in the place of a child, or adds it.
    pub(super) fn put(&mut self, name: &str, child: Self) {
        *self.child_or_new(name) = child;
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Self> {
        let place = self.children.iter().position(|(known, _)| known == name)?;
        Some(self.children.remove(place).1)
    }

    /// The members of a list, by their numbers.
    pub(super) fn members(&self, path: &str) -> Vec<&Self> {
        let children = self.at(path).map_or(&[][..], |list| &list.children);
        let mut members: Vec<(u32, &Self)> = children
            .iter()
            .filter_map(|(name, child)| Some((name.strip_prefix("member.")?.parse().ok()?, child)))
            .collect();
        members.sort_by_key(|(number, _)| *number);
        members.into_iter().map(|(_, member)| member).collect()
    }

    /// As an answer says it: names without numbers.
    pub(super) fn xml(&self) -> String {
        if self.children.is_empty() {
            return escaped(&self.text);
        }
        let mut children: Vec<_> = self.children.iter().collect();
        children.sort_by_key(|(name, _)| {
            let number = name.split_once('.').map_or("0", |(_, number)| number);
            number.parse::<u32>().unwrap_or(0)
        });
        let mut xml = String::new();
        for (name, child) in children {
            let name = name.split('.').next().unwrap_or(name);
            let _ = write!(xml, "<{name}>{}</{name}>", child.xml());
        }
        xml
    }
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }
}

const NAMESPACE: &str = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/";

/// The answer to a call, with the id of the request.
pub(super) fn response(action: &str, result: Result<String, Refusal>, id: &str) -> Response {
    let (status, body) = match result {
        Ok(inner) => (
            200,
            format!(
                "<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{inner}</{action}Result>\
                 <ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
            ),
        ),
        Err(refusal) => (
            refusal.status,
            format!(
                "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{}</Type><Code>{}</Code><Message>{}</Message></Error>\
                 <RequestId>{id}</RequestId></ErrorResponse>",
                if refusal.status < 500 {
                    "Sender"
                } else {
                    "Receiver"
                },
                refusal.code,
                escaped(&refusal.message)
            ),
        ),
    };
    Response::of(status, "text/xml", body).header("x-amzn-RequestId", id)
}

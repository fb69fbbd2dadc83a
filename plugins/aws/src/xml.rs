//! The XML of answers, as a tree without attributes and namespaces: the query protocol uses neither.

use cutover_plugin_sdk::Failure;
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

/// An element with its text or its children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

/// How deep elements nest. An answer has about ten levels.
const DEEPEST: usize = 64;

impl Element {
    /// Reads a document.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let broken = |why: &str| {
            Failure::permanent(
                "aws.answer",
                format!("the answer is not the XML of AWS: {why}"),
            )
        };
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Self> = Vec::new();
        let mut root = None;
        loop {
            let event = reader
                .read_event()
                .map_err(|error| broken(&error.to_string()))?;
            match event {
                Event::Start(start) => {
                    if open.len() == DEEPEST {
                        return Err(broken("it nests too deep"));
                    }
                    open.push(Self::named(start.local_name().as_ref()));
                }
                Event::Empty(empty) => {
                    let element = Self::named(empty.local_name().as_ref());
                    Self::close(element, &mut open, &mut root);
                }
                Event::End(_) => {
                    // The reader has matched it with its beginning.
                    if let Some(element) = open.pop() {
                        Self::close(element, &mut open, &mut root);
                    }
                }
                Event::Text(text) => {
                    if let Some(element) = open.last_mut() {
                        element.text.push_str(&text.xml10_content());
                    }
                }
                Event::CData(text) => {
                    if let Some(element) = open.last_mut() {
                        element.text.push_str(&text.xml10_content());
                    }
                }
                Event::GeneralRef(reference) => {
                    let character = reference
                        .resolve_char_ref()
                        .map_err(|error| broken(&error.to_string()))?;
                    let Some(element) = open.last_mut() else {
                        return Err(broken("there is a reference outside of it"));
                    };
                    match (character, resolve_predefined_entity(&reference)) {
                        (Some(character), _) => element.text.push(character),
                        (None, Some(text)) => element.text.push_str(text),
                        (None, None) => return Err(broken("it has an entity of its own")),
                    }
                }
                Event::DocType(_) => return Err(broken("it declares a document type")),
                Event::Eof if open.is_empty() => {
                    return root.ok_or_else(|| broken("it is empty"));
                }
                Event::Eof => return Err(broken("it breaks off")),
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            }
        }
    }

    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    fn close(mut element: Self, open: &mut [Self], root: &mut Option<Self>) {
        // Between children there is white space, which is no text.
        if !element.children.is_empty() {
            element.text.clear();
        }
        match open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => *root = Some(element),
        }
    }

    /// The first child of a name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first element at a path of names.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter()
            .try_fold(self, |element, name| element.child(name))
    }

    /// The text at a path of names, where there is any.
    pub(crate) fn text_at(&self, path: &[&str]) -> Option<&str> {
        let text = self.at(path)?.text.trim();
        (!text.is_empty()).then_some(text)
    }

    /// The members of the list at a path of names.
    pub(crate) fn members(&self, path: &[&str]) -> impl Iterator<Item = &Self> {
        let list = self.at(path).map(|list| list.children.as_slice());
        let members = list.unwrap_or_default().iter();
        members.filter(|child| child.name == MEMBER)
    }
}

/// What the members of a list are called, in answers as in requests.
pub(crate) const MEMBER: &str = "member";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_becomes_a_tree() {
        let root = Element::parse(
            "<?xml version=\"1.0\"?>\n<R xmlns=\"http://x/\" a='1'>\n  <!-- c --><L><member><A>1 &amp; &#50;</A></member><member><A><![CDATA[<3>]]></A><B/></member></L>\n</R>\n",
        )
        .unwrap();

        let members: Vec<_> = root.members(&["L"]).map(|it| it.text_at(&["A"])).collect();
        assert_eq!(members, [Some("1 & 2"), Some("<3>")]);
        assert_eq!(root.name, "R");
        assert_eq!(root.text, "");
        assert_eq!(root.text_at(&["L", "member", "B"]), None);
        assert_eq!(root.members(&["none"]).count(), 0);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "",
            "plain",
            "<a>",
            "<a></b>",
            "<a>&own;</a>",
            "&amp;<a/>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a/>",
            &"<a>".repeat(100),
        ] {
            let failure = Element::parse(text).unwrap_err();
            assert_eq!(failure.code, "aws.answer", "{text}");
        }
    }
}

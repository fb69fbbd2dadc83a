//! Calls of the query protocol: an action with its parameters, as the body of a form.

use cutover_plugin_sdk::http::percent_encode;

use crate::xml::{Element, MEMBER};

/// The version of the interface of Elastic Load Balancing that this plugin speaks.
const VERSION: &str = "2015-12-01";

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) action: &'static str,
    pub(crate) effect: Effect,
    parameters: Vec<(String, String)>,
}

/// What a call that was not answered may have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Changes,
}

impl Query {
    /// A call that reads.
    pub(crate) fn reading(action: &'static str) -> Self {
        Self {
            action,
            effect: Effect::Reads,
            parameters: Vec::new(),
        }
    }

    /// A call that changes something.
    pub(crate) fn changing(action: &'static str) -> Self {
        Self {
            effect: Effect::Changes,
            ..Self::reading(action)
        }
    }

    /// Adds a parameter.
    pub(crate) fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// Adds what an answer said, whatever it is: an element with children as that many parameters, a list with numbers.
    pub(crate) fn with_element(mut self, name: &str, element: &Element) -> Self {
        if element.children.is_empty() {
            // An element without text is one that was not set.
            return match element.text.trim() {
                "" => self,
                text => self.with(name, text),
            };
        }
        let mut numbers = 0;
        for child in &element.children {
            let is_listed = [MEMBER, "entry"].contains(&child.name.as_str());
            let name = if is_listed {
                numbers += 1;
                format!("{name}.{}.{numbers}", child.name)
            } else {
                format!("{name}.{}", child.name)
            };
            self = self.with_element(&name, child);
        }
        self
    }

    /// The body of the request.
    pub(crate) fn body(&self) -> String {
        let mut body = format!("Action={}&Version={VERSION}", self.action);
        for (name, value) in &self.parameters {
            body.push_str(&format!("&{name}={}", percent_encode(value)));
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_written_in_their_order() {
        let query = Query::changing("RegisterTargets")
            .with("TargetGroupArn", "arn:aws:x/y z")
            .with("Targets.member.1.Id", "i-1");

        assert_eq!(
            query.body(),
            "Action=RegisterTargets&Version=2015-12-01&TargetGroupArn=arn%3Aaws%3Ax%2Fy%20z&Targets.member.1.Id=i-1"
        );
    }

    #[test]
    fn what_was_answered_can_be_said_again() {
        let text = "<A><Type>authenticate-oidc</Type><C><Scope/><Extra><entry><key>k</key><value>a b</value></entry></Extra>\
                    <L><member>1</member><member>2</member></L></C></A>";

        let query = Query::changing("X").with_element("A.member.1", &Element::parse(text).unwrap());

        assert_eq!(
            query.body(),
            "Action=X&Version=2015-12-01&A.member.1.Type=authenticate-oidc&A.member.1.C.Extra.entry.1.key=k\
             &A.member.1.C.Extra.entry.1.value=a%20b&A.member.1.C.L.member.1=1&A.member.1.C.L.member.2=2"
        );
    }
}

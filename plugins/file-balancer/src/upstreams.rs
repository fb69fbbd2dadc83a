//! The list of upstreams: `TARGET ADDRESS:PORT WEIGHT` a line, comments and order kept.

use std::fmt;

use cutover_plugin_sdk::{Failure, Member};

use crate::Edit;

/// The weight of a member for which none was asked.
const USUAL_WEIGHT: u32 = 100;

/// The content of the file.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    /// A comment or an empty line.
    Verbatim(String),
    Upstream(Upstream),
}

#[derive(Debug, PartialEq, Eq)]
struct Upstream {
    target_id: String,
    address: String,
    weight: u32,
    /// From `#` on.
    comment: String,
}

impl Upstreams {
    /// Reads the list; the error is the number of the line that is none.
    pub(crate) fn parse(text: &str) -> Result<Self, usize> {
        let mut list = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = if line.trim().is_empty() || line.trim_start().starts_with('#') {
                Line::Verbatim(line.to_owned())
            } else {
                let upstream = Upstream::parse(line).ok_or(index + 1)?;
                if list.has(&upstream.target_id) {
                    return Err(index + 1);
                }
                Line::Upstream(upstream)
            };
            list.lines.push(line);
        }
        Ok(list)
    }

    pub(crate) fn has(&self, target_id: &str) -> bool {
        self.upstreams()
            .any(|upstream| upstream.target_id == target_id)
    }

    pub(crate) fn target_ids(&self) -> Vec<String> {
        self.upstreams()
            .map(|upstream| upstream.target_id.clone())
            .collect()
    }

    /// Adds a member or brings its line up to date. Without a weight asked for, a present one stays.
    pub(crate) fn put(&mut self, member: &Member) -> Result<Edit, Failure> {
        let is_word = |text: &str| {
            !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '#')
        };
        if !is_word(&member.target_id) || !is_word(&member.address) {
            return Err(Failure::invalid(
                "file-balancer.member",
                format!(
                    "`{}` at `{}` cannot be written as a line",
                    member.target_id, member.address
                ),
            ));
        }
        let address = match &member.address {
            v6 if v6.contains(':') && !v6.starts_with('[') => format!("[{v6}]:{}", member.port),
            other => format!("{other}:{}", member.port),
        };
        match self.upstream(&member.target_id) {
            Some(present) => {
                let weight = member.weight.unwrap_or(present.weight);
                if present.address == address && present.weight == weight {
                    return Ok(Edit::Unchanged);
                }
                (present.address, present.weight) = (address, weight);
            }
            None => self.lines.push(Line::Upstream(Upstream {
                target_id: member.target_id.clone(),
                address,
                weight: member.weight.unwrap_or(USUAL_WEIGHT),
                comment: String::new(),
            })),
        }
        Ok(Edit::Changed)
    }

    pub(crate) fn remove(&mut self, target_id: &str) -> Edit {
        let before = self.lines.len();
        self.lines.retain(
            |line| !matches!(line, Line::Upstream(upstream) if upstream.target_id == target_id),
        );
        if self.lines.len() == before {
            Edit::Unchanged
        } else {
            Edit::Changed
        }
    }

    pub(crate) fn weigh(&mut self, target_id: &str, weight: u32) -> Result<Edit, Failure> {
        match self.upstream(target_id) {
            Some(present) if present.weight == weight => Ok(Edit::Unchanged),
            Some(present) => {
                present.weight = weight;
                Ok(Edit::Changed)
            }
            None => Err(Failure::not_found(
                "file-balancer.member",
                format!("`{target_id}` is not in the list"),
            )),
        }
    }

    fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.lines.iter().filter_map(|line| match line {
            Line::Upstream(upstream) => Some(upstream),
            Line::Verbatim(_) => None,
        })
    }

    fn upstream(&mut self, target_id: &str) -> Option<&mut Upstream> {
        self.lines.iter_mut().find_map(|line| match line {
            Line::Upstream(upstream) if upstream.target_id == target_id => Some(upstream),
            _ => None,
        })
    }
}

impl Upstream {
    fn parse(line: &str) -> Option<Self> {
        let (words, comment) = match line.find('#') {
            Some(at) => line.split_at(at),
            None => (line, ""),
        };
        let words: Vec<&str> = words.split_whitespace().collect();
        let &[target_id, address, ref rest @ ..] = words.as_slice() else {
            return None;
        };
        let (host, port) = address.rsplit_once(':')?;
        let weight = match rest {
            [] => USUAL_WEIGHT,
            [weight] => weight.parse().ok()?,
            _ => return None,
        };
        (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| Self {
            target_id: target_id.to_owned(),
            address: address.to_owned(),
            weight,
            comment: comment.to_owned(),
        })
    }
}

impl fmt::Display for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            match line {
                Line::Verbatim(text) => writeln!(f, "{text}")?,
                Line::Upstream(Upstream {
                    target_id,
                    address,
                    weight,
                    comment,
                }) => {
                    write!(f, "{target_id} {address} {weight}")?;
                    if !comment.is_empty() {
                        write!(f, " {comment}")?;
                    }
                    writeln!(f)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# shop\n\nweb-1 10.0.0.1:8081 100 # rack 4\nweb-2 [::1]:8082 50\n";

    fn member(target_id: &str, address: &str, port: u16, weight: Option<u32>) -> Member {
        Member {
            target_id: target_id.to_owned(),
            provider_id: None,
            address: address.to_owned(),
            port,
            weight,
            zone: None,
            attributes: Vec::new(),
        }
    }

    fn check(change: impl FnOnce(&mut Upstreams) -> Edit, edit: Edit, expected: &str) {
        let mut list = Upstreams::parse(LIST).unwrap();

        let done = change(&mut list);

        assert_eq!((done, list.to_string().as_str()), (edit, expected));
    }

    #[test]
    fn what_is_in_place_is_unchanged() {
        check(
            |list| {
                list.put(&member("web-1", "10.0.0.1", 8081, Some(100)))
                    .unwrap()
            },
            Edit::Unchanged,
            LIST,
        );
        check(
            |list| list.put(&member("web-2", "::1", 8082, None)).unwrap(),
            Edit::Unchanged,
            LIST,
        );
        check(|list| list.remove("web-9"), Edit::Unchanged, LIST);
        check(
            |list| list.weigh("web-2", 50).unwrap(),
            Edit::Unchanged,
            LIST,
        );
    }

    #[test]
    fn comments_and_order_stay() {
        check(
            |list| list.put(&member("web-1", "10.0.0.9", 80, None)).unwrap(),
            Edit::Changed,
            "# shop\n\nweb-1 10.0.0.9:80 100 # rack 4\nweb-2 [::1]:8082 50\n",
        );
        check(
            |list| list.remove("web-1"),
            Edit::Changed,
            "# shop\n\nweb-2 [::1]:8082 50\n",
        );
        check(
            |list| list.put(&member("web-3", "h", 1, Some(7))).unwrap(),
            Edit::Changed,
            "# shop\n\nweb-1 10.0.0.1:8081 100 # rack 4\nweb-2 [::1]:8082 50\nweb-3 h:1 7\n",
        );
        check(
            |list| list.weigh("web-2", 5).unwrap(),
            Edit::Changed,
            "# shop\n\nweb-1 10.0.0.1:8081 100 # rack 4\nweb-2 [::1]:8082 5\n",
        );
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for (text, line) in [
            ("web-1\n", 1),
            ("# a\nweb-1 host\n", 2),
            ("a h:1 x\n", 1),
            ("a h:1\na h:2\n", 2),
        ] {
            assert_eq!(Upstreams::parse(text).err(), Some(line), "{text}");
        }
    }

    #[test]
    fn a_member_that_would_break_the_line_is_refused() {
        let mut list = Upstreams::default();

        assert!(list.put(&member("web 1", "h", 1, None)).is_err());
        assert!(list.put(&member("web-1", "h\nweb-2 x", 1, None)).is_err());
        assert_eq!(list.to_string(), "");
    }
}

//! The include file with an upstream's servers: a `server` line for each, whose comment says which member it is.
//!
//! `server 10.0.0.1:8081 weight=100; # web-1` is in traffic; `down; # web-1 out weight=100` is out of it; a member of
//! weight 0, which nginx has no notation for, is `down; # web-1 weight=0`. All other lines are the operator's and stay.

use std::fmt::Write as _;

use cutover_plugin_sdk::Failure;

/// The weight of a member for which none was asked.
pub(crate) const USUAL_WEIGHT: u32 = 100;

/// The content of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Servers {
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Verbatim(String),
    Server(Server),
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) target_id: String,
    pub(crate) address: String,
    pub(crate) weight: u32,
    pub(crate) place: Place,
}

/// Whether a member takes part in traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    In,
    Out,
}

impl Servers {
    pub(crate) fn parse(text: &str) -> Self {
        let line = |line: &str| match Server::parse(line) {
            Some(server) => Line::Server(server),
            None => Line::Verbatim(line.to_owned()),
        };
        Self {
            lines: text.lines().map(line).collect(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            // Writing to a string cannot fail.
            let _ = match line {
                Line::Verbatim(line) => writeln!(text, "{line}"),
                Line::Server(server) => writeln!(text, "{}", server.line()),
            };
        }
        text
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Server> {
        self.lines.iter().filter_map(|line| match line {
            Line::Server(server) => Some(server),
            Line::Verbatim(_) => None,
        })
    }

    pub(crate) fn find(&self, target_id: &str) -> Option<&Server> {
        self.all().find(|server| server.target_id == target_id)
    }

    /// Puts a member in. Without a weight asked for, a present one stays.
    pub(crate) fn put(
        &mut self,
        target_id: &str,
        address: &str,
        port: u16,
        weight: Option<u32>,
    ) -> Result<(), Failure> {
        let is_word = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b))
        };
        if !is_word(target_id) || !is_word(address) {
            return Err(Failure::invalid(
                "nginx.member",
                format!("`{target_id}` at `{address}` cannot be written as a server of nginx"),
            ));
        }
        let address = match address {
            v6 if v6.contains(':') && !v6.starts_with('[') => format!("[{v6}]:{port}"),
            other => format!("{other}:{port}"),
        };
        match self.find_mut(target_id) {
            Some(server) => {
                server.weight = weight.unwrap_or(server.weight);
                (server.address, server.place) = (address, Place::In);
            }
            None => self.lines.push(Line::Server(Server {
                target_id: target_id.to_owned(),
                address,
                weight: weight.unwrap_or(USUAL_WEIGHT),
                place: Place::In,
            })),
        }
        Ok(())
    }

    /// Takes a member out of traffic. Its line stays, for nginx refuses an upstream without servers.
    pub(crate) fn take_out(&mut self, target_id: &str) {
        if let Some(server) = self.find_mut(target_id) {
            server.place = Place::Out;
        }
    }

    pub(crate) fn weigh(&mut self, target_id: &str, weight: u32) -> Result<(), Failure> {
        match self.find_mut(target_id) {
            Some(server) => server.weight = weight,
            None => return Err(unknown(target_id)),
        }
        Ok(())
    }

    fn find_mut(&mut self, target_id: &str) -> Option<&mut Server> {
        self.lines.iter_mut().find_map(|line| match line {
            Line::Server(server) if server.target_id == target_id => Some(server),
            _ => None,
        })
    }
}

pub(crate) fn unknown(target_id: &str) -> Failure {
    Failure::not_found(
        "nginx.member",
        format!("`{target_id}` is not among the upstream's servers"),
    )
    .hint("register it first: its line ends with `# NAME`")
}

impl Server {
    fn parse(line: &str) -> Option<Self> {
        let (directive, comment) = line.trim().split_once('#')?;
        let directive = directive.trim().strip_suffix(';')?;
        let mut words = directive.split_whitespace();
        if words.next()? != "server" {
            return None;
        }
        let address = words.next()?.to_owned();
        let mut weight = None;
        let mut is_down = false;
        for word in words {
            match word.strip_prefix("weight=") {
                Some(number) => weight = Some(number.parse().ok()?),
                None if word == "down" => is_down = true,
                // A parameter that this plugin does not write: the line is the operator's.
                None => return None,
            }
        }
        let mut words = comment.split_whitespace();
        let target_id = words.next()?.to_owned();
        let mut place = Place::In;
        for word in words {
            match word.strip_prefix("weight=") {
                Some(number) => weight = Some(number.parse().ok()?),
                None if word == "out" => place = Place::Out,
                None => return None,
            }
        }
        // Put down by hand: out of traffic, until it is registered again.
        if is_down && weight != Some(0) {
            place = Place::Out;
        }
        Some(Self {
            target_id,
            address,
            // nginx's own default is 1, and so is that of a line which the operator wrote.
            weight: weight.unwrap_or(1),
            place,
        })
    }

    fn line(&self) -> String {
        let Self {
            target_id,
            address,
            weight,
            ..
        } = self;
        match (self.place, weight) {
            (Place::In, 0) => format!("server {address} down; # {target_id} weight=0"),
            (Place::In, _) => format!("server {address} weight={weight}; # {target_id}"),
            (Place::Out, _) => format!("server {address} down; # {target_id} out weight={weight}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# shop\nserver 10.0.0.1:8081 weight=100; # web-1\nserver 10.0.0.2:8081 down; # web-2 out weight=50\n\
                        server 10.0.0.3:8081 down; # web-3 weight=0\nserver 10.0.0.9:80 backup;\n";

    fn check(change: impl FnOnce(&mut Servers), expected: &str) {
        let mut servers = Servers::parse(FILE);

        change(&mut servers);

        assert_eq!(servers.text(), expected);
        assert_eq!(
            Servers::parse(&servers.text()),
            servers,
            "it reads what it writes"
        );
    }

    #[test]
    fn lines_of_the_operator_and_the_order_stay() {
        check(|_| {}, FILE);
        check(
            |servers| servers.put("web-1", "10.0.0.1", 8081, None).unwrap(),
            FILE,
        );
    }

    #[test]
    fn members_go_out_and_come_back_with_their_weight() {
        check(
            |servers| {
                servers.take_out("web-1");
                servers.put("web-2", "10.0.0.2", 8081, None).unwrap();
            },
            "# shop\nserver 10.0.0.1:8081 down; # web-1 out weight=100\nserver 10.0.0.2:8081 weight=50; # web-2\n\
             server 10.0.0.3:8081 down; # web-3 weight=0\nserver 10.0.0.9:80 backup;\n",
        );
    }

    #[test]
    fn a_member_of_weight_0_is_in_traffic_and_gets_nothing() {
        let servers = Servers::parse(FILE);
        let web_3 = servers.find("web-3").unwrap();

        assert_eq!((web_3.place, web_3.weight), (Place::In, 0));
        check(
            |servers| {
                servers.weigh("web-3", 7).unwrap();
                servers.weigh("web-1", 0).unwrap();
            },
            "# shop\nserver 10.0.0.1:8081 down; # web-1 weight=0\nserver 10.0.0.2:8081 down; # web-2 out weight=50\n\
             server 10.0.0.3:8081 weight=7; # web-3\nserver 10.0.0.9:80 backup;\n",
        );
    }

    #[test]
    fn what_the_operator_wrote_by_hand_is_understood() {
        let servers =
            Servers::parse("  server web-1.internal:80; # web-1\nserver [::1]:80 down; #web-2\n");

        let told: Vec<_> = servers
            .all()
            .map(|s| (s.target_id.as_str(), s.weight, s.place))
            .collect();

        assert_eq!(told, [("web-1", 1, Place::In), ("web-2", 1, Place::Out)]);
    }

    #[test]
    fn a_member_that_would_break_the_line_is_refused() {
        let mut servers = Servers::default();

        assert!(servers.put("web 1", "h", 1, None).is_err());
        assert!(servers.put("web-1", "h; }", 1, None).is_err());
        servers.put("web-1", "::1", 80, None).unwrap();
        assert_eq!(servers.text(), "server [::1]:80 weight=100; # web-1\n");
        assert!(servers.weigh("web-2", 1).is_err());
    }
}

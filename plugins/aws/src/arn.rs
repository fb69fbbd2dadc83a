//! Names of resources, as far as this plugin tells them apart.

/// The kinds of resources that a configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    TargetGroup,
    Listener,
    Rule,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::TargetGroup => "targetgroup/",
            Self::Listener => "listener/",
            Self::Rule => "listener-rule/",
        }
    }

    /// What is wrong with an ARN, where anything is.
    pub(crate) fn problem(self, arn: &str, region: &str) -> Option<String> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let [start, partition, service, in_region, account, resource] = parts[..] else {
            return Some(self.expected(arn));
        };
        let is_one = start == "arn"
            && partition.starts_with("aws")
            && service == "elasticloadbalancing"
            && !account.is_empty()
            && resource.starts_with(self.prefix())
            && !arn.contains(char::is_whitespace);
        if !is_one {
            return Some(self.expected(arn));
        }
        (in_region != region)
            .then(|| format!("`{arn}` is in region `{in_region}`, and `region` is `{region}`"))
    }

    fn expected(self, arn: &str) -> String {
        format!(
            "`{arn}` is not the ARN of this: write `arn:aws:elasticloadbalancing:REGION:ACCOUNT:{}…`",
            self.prefix()
        )
    }
}

/// The part of an ARN that people know: `tg-blue` of a target group, kind and name of a listener or a rule.
pub(crate) fn name(arn: &str) -> &str {
    let resource = arn.splitn(6, ':').last().unwrap_or(arn);
    match resource.strip_prefix(Kind::TargetGroup.prefix()) {
        Some(name) => name.split('/').next().unwrap_or(name),
        None => resource,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "arn:aws-cn:elasticloadbalancing:cn-north-1:123456789012:targetgroup/tg-blue/73e2d6bc24d8a067";

    #[test]
    fn what_is_no_arn_of_the_kind_is_told() {
        assert_eq!(Kind::TargetGroup.problem(GROUP, "cn-north-1"), None);
        for (kind, arn, message) in [
            (
                Kind::TargetGroup,
                "tg-blue",
                "`tg-blue` is not the ARN of this: write `arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/…`",
            ),
            (
                Kind::Rule,
                "arn:aws:elasticloadbalancing:cn-north-1:1:listener/app/x/1/2",
                "`arn:aws:elasticloadbalancing:cn-north-1:1:listener/app/x/1/2` is not the ARN of this: write \
                 `arn:aws:elasticloadbalancing:REGION:ACCOUNT:listener-rule/…`",
            ),
            (
                Kind::Listener,
                "arn:aws:elasticloadbalancing:us-east-1:1:listener/app/x/1/2",
                "`arn:aws:elasticloadbalancing:us-east-1:1:listener/app/x/1/2` is in region `us-east-1`, and `region` is `cn-north-1`",
            ),
        ] {
            assert_eq!(kind.problem(arn, "cn-north-1").as_deref(), Some(message));
        }
    }

    #[test]
    fn people_know_the_names() {
        assert_eq!(name(GROUP), "tg-blue");
        assert_eq!(
            name("arn:aws:elasticloadbalancing:us-east-1:1:listener/app/shop/50dc/f2f7"),
            "listener/app/shop/50dc/f2f7"
        );
        assert_eq!(name("x"), "x");
    }
}

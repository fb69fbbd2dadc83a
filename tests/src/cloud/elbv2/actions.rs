//! Lists of actions, as listeners and rules have them: what a call brings replaces all, and answers leave secrets out.

use super::call::{Node, Refusal};

/// The largest weight of a target group.
const LARGEST: u32 = 999;
/// How many target groups one action forwards to at most.
const MOST_GROUPS: usize = 5;
const SECRET: &str = "AuthenticateOidcConfig/ClientSecret";

/// A list of actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Actions {
    list: Vec<Node>,
}

impl Actions {
    /// The actions of a call, in the place of others. Target groups have to exist.
    pub(super) fn replaced(
        &self,
        members: &[&Node],
        exists: impl Fn(&str) -> bool,
    ) -> Result<Self, Refusal> {
        let invalid = |message: String| Err(Refusal::new(400, "ValidationError", message));
        if members.is_empty() {
            return invalid("1 validation error detected: no actions".to_owned());
        }
        let mut list = Vec::new();
        for &member in members {
            let mut action = member.clone();
            match action.text_at("Type") {
                Some("forward") => forward(&mut action, &exists)?,
                Some("authenticate-oidc") => self.keep_secret(&mut action)?,
                Some(_) => {}
                None => return invalid("an action has no type".to_owned()),
            }
            list.push(action);
        }
        list.sort_by_key(|action| {
            let order = action.text_at("Order").unwrap_or("0");
            order.parse::<u32>().unwrap_or(0)
        });
        Ok(Self { list })
    }

    /// A client's secret that a call does not bring is the one that was there, where the call says so.
    fn keep_secret(&self, action: &mut Node) -> Result<(), Refusal> {
        if action.at(SECRET).is_some() {
            return Ok(());
        }
        let keeps =
            action.text_at("AuthenticateOidcConfig/UseExistingClientSecret") == Some("true");
        let known = self.list.iter().find_map(|action| action.at(SECRET));
        match (keeps, known) {
            (true, Some(secret)) => {
                let secret = secret.clone();
                if let Some((_, config)) = action
                    .children
                    .iter_mut()
                    .find(|(name, _)| name == "AuthenticateOidcConfig")
                {
                    config.remove("UseExistingClientSecret");
                    config.put("ClientSecret", secret);
                }
                Ok(())
            }
            _ => Err(Refusal::new(
                400,
                "ValidationError",
                "You must specify the client secret",
            )),
        }
    }

    /// The client's secret of the action that authenticates.
    pub(super) fn secret(&self) -> Option<&str> {
        self.list.iter().find_map(|action| action.text_at(SECRET))
    }

    /// The weights of target groups, in their order.
    pub(super) fn weights(&self) -> Vec<(String, u32)> {
        let forward = self.list.iter().find_map(|it| it.at("ForwardConfig"));
        let groups = forward.map(|forward| forward.members("TargetGroups"));
        let groups = groups.unwrap_or_default().into_iter();
        groups
            .map(|group| {
                let arn = group.text_at("TargetGroupArn").unwrap_or_default();
                let weight = group.text_at("Weight").unwrap_or_default();
                (arn.to_owned(), weight.parse().unwrap_or(0))
            })
            .collect()
    }

    /// As an answer says them.
    pub(super) fn xml(&self) -> String {
        let actions = self.list.iter().map(|action| {
            let mut action = action.clone();
            let mut children = action.children.iter_mut();
            if let Some((_, config)) = children.find(|(name, _)| name == "AuthenticateOidcConfig") {
                config.remove("ClientSecret");
            }
            format!("<member>{}</member>", action.xml())
        });
        actions.collect()
    }
}

/// Checks what forwards, and says all of it as AWS says it.
fn forward(action: &mut Node, exists: &impl Fn(&str) -> bool) -> Result<(), Refusal> {
    let invalid = |code: &'static str, message: String| Err(Refusal::new(400, code, message));
    let only = action.text_at("TargetGroupArn").map(str::to_owned);
    let mut config = action.remove("ForwardConfig").unwrap_or_default();
    let mut groups: Vec<(String, u32)> = Vec::new();
    for group in config.members("TargetGroups") {
        let arn = group.text_at("TargetGroupArn").unwrap_or_default();
        let weight = group.text_at("Weight").unwrap_or("1").parse();
        match weight {
            Ok(weight) if weight <= LARGEST => groups.push((arn.to_owned(), weight)),
            _ => {
                let message = format!("Weight must be between 0 and {LARGEST}");
                return invalid("ValidationError", message);
            }
        }
    }
    match (&only, groups.as_slice()) {
        (Some(only), []) => groups.push((only.clone(), 1)),
        (Some(only), [(arn, _)]) if only == arn => {}
        (Some(_), _) => {
            let message = "TargetGroupArn and ForwardConfig name different target groups";
            return invalid("InvalidLoadBalancerAction", message.to_owned());
        }
        (None, []) => return invalid("ValidationError", "no target group is given".to_owned()),
        (None, _) => {}
    }
    if groups.len() > MOST_GROUPS {
        let message = format!("an action forwards to {MOST_GROUPS} target groups at most");
        return invalid("TooManyTargetGroups", message);
    }
    if let Some((missing, _)) = groups.iter().find(|(arn, _)| !exists(arn)) {
        let message = format!("Target group '{missing}' not found");
        return invalid("TargetGroupNotFound", message);
    }
    let mut list = Node::default();
    for ((arn, weight), number) in groups.iter().zip(1..) {
        let mut member = Node::default();
        member.put("TargetGroupArn", Node::leaf(arn));
        member.put("Weight", Node::leaf(weight.to_string()));
        list.put(&format!("member.{number}"), member);
    }
    let sticky = config.remove("TargetGroupStickinessConfig");
    let mut said = Node::default();
    said.put("TargetGroups", list);
    said.put(
        "TargetGroupStickinessConfig",
        sticky.unwrap_or_else(|| {
            let mut off = Node::default();
            off.put("Enabled", Node::leaf("false"));
            off
        }),
    );
    action.remove("TargetGroupArn");
    if let [(arn, _)] = groups.as_slice() {
        action.put("TargetGroupArn", Node::leaf(arn));
    }
    action.put("ForwardConfig", said);
    Ok(())
}

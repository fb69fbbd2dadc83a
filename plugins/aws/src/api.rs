//! Calling Elastic Load Balancing.

use cutover_plugin_sdk::http::{Request, send};
use cutover_plugin_sdk::signing::{Credentials, Key, aws};
use cutover_plugin_sdk::{Failure, Time};

use crate::answer::{self, Answer};
use crate::config::Config;
use crate::query::Query;
use crate::xml::Element;

/// What answers calls.
pub(crate) trait Api {
    /// Sends the body of a call. An answer that refuses it is an answer.
    fn send(&self, body: String) -> Result<Answer, Failure>;
}

impl dyn Api + '_ {
    /// Makes a call, and answers with its document.
    pub(crate) fn call(&self, query: &Query) -> Result<Element, Failure> {
        let answer = self
            .send(query.body())
            .map_err(|failure| answer::unanswered(query, failure))?;
        answer::read(query, &answer)
    }
}

/// AWS itself, with what the operator granted.
pub(crate) struct Granted<'a>(pub(crate) &'a Config);

impl Api for Granted<'_> {
    fn send(&self, body: String) -> Result<Answer, Failure> {
        let config = self.0;
        let credentials = config.secrets.credentials(&config.access_key)?;
        let request = request(config, &credentials, body, cutover_plugin_sdk::now())?;
        Ok(Answer {
            response: send(&request)?,
            signed_at: signed_at(&request),
        })
    }
}

/// The name of the service in signatures.
const SERVICE: &str = "elasticloadbalancing";

fn request<K: Key>(
    config: &Config,
    credentials: &Credentials<K>,
    body: String,
    at: Time,
) -> Result<Request, Failure> {
    let mut request = Request::new("POST", config.endpoint())
        .header(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        )
        .body(body)
        .timeout(config.timeout);
    aws::sign(&mut request, credentials, &config.region, SERVICE, at)?;
    Ok(request)
}

fn signed_at(request: &Request) -> Option<String> {
    let mut headers = request.headers.iter();
    let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case("x-amz-date"))?;
    Some(value.clone())
}

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::signing::Plain;

    use super::*;
    use crate::actions::Actions;
    use crate::fake::{BLUE, GREEN, LISTENER, RULE, config};

    /// Signs the body of a call with the key and at the time of the vectors that botocore made.
    #[track_caller]
    fn check(query: &Query, body: &str, signature: &str) {
        let credentials = Credentials {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: Plain::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: None,
        };
        let at = Time::from_unix_ms(1_704_164_645_000);

        let request = request(&config(""), &credentials, query.body(), at).unwrap();

        assert_eq!(query.body(), body);
        let authorization = request
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        assert_eq!(
            authorization.unwrap().1,
            format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240102/us-east-1/elasticloadbalancing/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date, Signature={signature}"
            )
        );
        assert_eq!(signed_at(&request).as_deref(), Some("20240102T030405Z"));
    }

    const BLUE_SAID: &str = "TargetGroupArn=arn%3Aaws%3Aelasticloadbalancing%3Aus-east-1%3A123456789012%3Atargetgroup%2Ftg-blue%2F73e2d6bc24d8a067";
    const ONE: &str = "Targets.member.1.Id=i-0123456789abcdef0&Targets.member.1.Port=8080";

    fn one(query: Query) -> Query {
        query
            .with("TargetGroupArn", BLUE)
            .with("Targets.member.1.Id", "i-0123456789abcdef0")
            .with("Targets.member.1.Port", "8080")
    }

    #[test]
    fn calls_about_targets_are_signed_as_botocore_signs_them() {
        let two = one(Query::changing("RegisterTargets"))
            .with("Targets.member.2.Id", "i-0fedcba9876543210")
            .with("Targets.member.2.Port", "8080");
        check(
            &two,
            &format!(
                "Action=RegisterTargets&Version=2015-12-01&{BLUE_SAID}&{ONE}&Targets.member.2.Id=i-0fedcba9876543210&Targets.member.2.Port=8080"
            ),
            "599597cf28ca4f838a0f68e0fe19e990e40c6e9dd5345ea7121a58d7bd95ead9",
        );
        check(
            &one(Query::changing("DeregisterTargets")),
            &format!("Action=DeregisterTargets&Version=2015-12-01&{BLUE_SAID}&{ONE}"),
            "f7fc5abc80cb5bdb31d83a2ff802082c2c12be0aa4737a1e8c93919f885da8df",
        );
        check(
            &Query::reading("DescribeTargetHealth").with("TargetGroupArn", BLUE),
            &format!("Action=DescribeTargetHealth&Version=2015-12-01&{BLUE_SAID}"),
            "0257f874a80b0f42dd222e39132f98df72ea558c3e31b1d42333a2dbebd73f66",
        );
        check(
            &one(Query::reading("DescribeTargetHealth")),
            &format!("Action=DescribeTargetHealth&Version=2015-12-01&{BLUE_SAID}&{ONE}"),
            "2cbbd9aef1a53827cb0849a8426542c95a45541305b80995173b80cdc16ad670",
        );
    }

    #[test]
    fn calls_about_weights_are_signed_as_botocore_signs_them() {
        let green_said =
            BLUE_SAID.replace("tg-blue%2F73e2d6bc24d8a067", "tg-green%2F943f017f100becff");
        let actions = |stickiness: &str| {
            let text = format!(
                "<L><member><Type>forward</Type><TargetGroupArn>{BLUE}</TargetGroupArn><ForwardConfig>{stickiness}</ForwardConfig></member></L>"
            );
            Actions::of(Element::parse(&text).unwrap().members(&[]), "listener").unwrap()
        };
        let weights = |blue, green| [(BLUE.to_owned(), blue), (GREEN.to_owned(), green)].into();
        let said = |name: &str, blue, green| {
            let forward = format!("{name}.member.1.ForwardConfig.TargetGroups.member");
            format!(
                "{name}.member.1.Type=forward&{forward}.1.{BLUE_SAID}&{forward}.1.Weight={blue}&{forward}.2.{green_said}&{forward}.2.Weight={green}"
            )
        };
        let sticky =
            "<TargetGroupStickinessConfig><Enabled>false</Enabled></TargetGroupStickinessConfig>";

        check(
            &actions(sticky).with_weights(&weights(80, 20)).added_to(
                Query::changing("ModifyListener").with("ListenerArn", LISTENER),
                "DefaultActions",
            ),
            &format!(
                "Action=ModifyListener&Version=2015-12-01&ListenerArn=arn%3Aaws%3Aelasticloadbalancing%3Aus-east-1%3A123456789012%3Alistener\
                 %2Fapp%2Flb1%2F50dc6c495c0c9188%2Ff2f7dc8efc522ab2&{}&DefaultActions.member.1.ForwardConfig.TargetGroupStickinessConfig.Enabled=false",
                said("DefaultActions", 80, 20)
            ),
            "25e0f9e53eaa964d53d93fdc3a881d275e6e588b9169390e057b3f96ba453e7e",
        );
        check(
            &actions("").with_weights(&weights(0, 100)).added_to(
                Query::changing("ModifyRule").with("RuleArn", RULE),
                "Actions",
            ),
            &format!(
                "Action=ModifyRule&Version=2015-12-01&RuleArn=arn%3Aaws%3Aelasticloadbalancing%3Aus-east-1%3A123456789012%3Alistener-rule\
                 %2Fapp%2Flb1%2F50dc6c495c0c9188%2Ff2f7dc8efc522ab2%2F9683b2d02a6cabee&{}",
                said("Actions", 0, 100)
            ),
            "83c592593b0f8f1e2f3fc928d34ae5b2ea22bf289d6e2379e8fc2a1e4b2c38b0",
        );
    }
}

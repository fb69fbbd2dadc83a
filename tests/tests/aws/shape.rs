//! The fake has the shape of AWS: boto3 gets along with it, and finds in its answers what it finds in those of AWS.

use std::time::Duration;

use cutover_tests::cloud::elbv2::Elbv2;
use cutover_tests::cloud::{CloudServer, python};

use crate::account::{ACCESS_KEY, SECRET_KEY};

/// Runs a script with a client `elb`, the target groups `blue` and `green`, the listener and the rule.
fn script(server: &CloudServer<Elbv2>, key: [&str; 2], lines: &str) -> cutover_tests::Answer {
    let script = format!(
        "import sys, json, boto3\n\
         from botocore.config import Config\n\
         from botocore.exceptions import ClientError\n\
         endpoint, access, secret, blue, green, listener, rule = sys.argv[1:8]\n\
         token = access.partition('+')[2] or None\n\
         elb = boto3.client('elbv2', endpoint_url=endpoint, region_name='us-east-1', aws_access_key_id=access.partition('+')[0],\n\
         \x20                  aws_secret_access_key=secret, aws_session_token=token, config=Config(retries={{'total_max_attempts': 1}}))\n\
         def health(group, **more):\n\
         \x20   found = elb.describe_target_health(TargetGroupArn=group, **more)['TargetHealthDescriptions']\n\
         \x20   return [[it['Target']['Id'], it['Target']['Port'], it['TargetHealth']['State'], it['TargetHealth'].get('Reason')] for it in found]\n\
         def weights(actions):\n\
         \x20   return [[it['TargetGroupArn'].split('/')[1], it['Weight']] for it in actions[-1]['ForwardConfig']['TargetGroups']]\n\
         def refused(call, **named):\n\
         \x20   try:\n\
         \x20       call(**named)\n\
         \x20   except ClientError as error:\n\
         \x20       return [error.response['Error']['Code'], error.response['ResponseMetadata']['HTTPStatusCode'],\n\
         \x20               bool(error.response['ResponseMetadata']['RequestId'])]\n\
         {lines}"
    );
    python(
        &script,
        &[
            &server.endpoint(),
            key[0],
            key[1],
            &Elbv2::group_arn("blue"),
            &Elbv2::group_arn("green"),
            &Elbv2::listener_arn(),
            &Elbv2::rule_arn(),
        ],
    )
}

fn server() -> CloudServer<Elbv2> {
    CloudServer::start(Elbv2::new(ACCESS_KEY, SECRET_KEY, &["blue", "green"]))
}

#[track_caller]
fn check(server: &CloudServer<Elbv2>, lines: &str, expected: &str) {
    let answer = script(server, [ACCESS_KEY, SECRET_KEY], lines).ok();
    assert_eq!(answer.stdout.trim(), expected, "{}", answer.stderr);
}

#[test]
fn boto3_finds_targets_as_those_of_aws_are() {
    let server = server();

    check(
        &server,
        "elb.register_targets(TargetGroupArn=blue, Targets=[{'Id': 'i-1', 'Port': 80}, {'Id': 'i-2', 'Port': 81}])\nprint(json.dumps(health(blue)))",
        r#"[["i-1", 80, "initial", "Elb.InitialHealthChecking"], ["i-2", 81, "initial", "Elb.InitialHealthChecking"]]"#,
    );
    server.with(|cloud| {
        cloud.pass(Duration::from_secs(10));
        cloud.sicken("blue", "i-2", 81, Some("Target.FailedHealthChecks"));
    });
    check(
        &server,
        "print(json.dumps(health(blue)))",
        r#"[["i-1", 80, "healthy", null], ["i-2", 81, "unhealthy", "Target.FailedHealthChecks"]]"#,
    );
    check(
        &server,
        "elb.deregister_targets(TargetGroupArn=blue, Targets=[{'Id': 'i-1', 'Port': 80}, {'Id': 'i-9', 'Port': 80}])\nprint(json.dumps(health(blue)[0]))",
        r#"["i-1", 80, "draining", "Target.DeregistrationInProgress"]"#,
    );
    server.with(|cloud| cloud.pass(Duration::from_secs(300)));
    check(
        &server,
        "print(json.dumps([health(blue), health(blue, Targets=[{'Id': 'i-1', 'Port': 80}])]))\n\
         elb.get_waiter('target_deregistered').wait(TargetGroupArn=blue, Targets=[{'Id': 'i-1', 'Port': 80}])",
        r#"[[["i-2", 81, "unhealthy", "Target.FailedHealthChecks"]], [["i-1", 80, "unused", "Target.NotRegistered"]]]"#,
    );
    check(
        &server,
        "found = elb.describe_target_groups(TargetGroupArns=[blue])['TargetGroups'][0]\n\
         delay = elb.describe_target_group_attributes(TargetGroupArn=blue)['Attributes']\n\
         print(json.dumps([found['TargetType'], len(found['LoadBalancerArns']), delay]))",
        r#"["instance", 1, [{"Key": "deregistration_delay.timeout_seconds", "Value": "300"}]]"#,
    );
}

#[test]
fn boto3_finds_a_target_of_a_group_that_nothing_forwards_to_unused() {
    let server = server();
    server.with(|cloud| {
        cloud.weigh(&[("blue", 1)]);
        cloud.register("green", "i-3", 80);
    });

    check(
        &server,
        "print(json.dumps([health(green), elb.describe_target_groups(TargetGroupArns=[green])['TargetGroups'][0]['LoadBalancerArns']]))",
        r#"[[["i-3", 80, "unused", "Target.NotInUse"]], []]"#,
    );
}

#[test]
fn boto3_replaces_actions_and_finds_them_again_but_for_secrets() {
    let server = server();
    let lines = "\
forward = {'Type': 'forward', 'Order': 2, 'ForwardConfig': {'TargetGroups': [{'TargetGroupArn': blue, 'Weight': 80}, {'TargetGroupArn': green, 'Weight': 20}],
  'TargetGroupStickinessConfig': {'Enabled': True, 'DurationSeconds': 60}}}
oidc = {'Type': 'authenticate-oidc', 'Order': 1, 'AuthenticateOidcConfig': {'Issuer': 'https://i', 'AuthorizationEndpoint': 'https://a',
  'TokenEndpoint': 'https://t', 'UserInfoEndpoint': 'https://u', 'ClientId': 'c', 'ClientSecret': 's',
  'AuthenticationRequestExtraParams': {'display': 'page'}}}
elb.modify_listener(ListenerArn=listener, DefaultActions=[forward, oidc])
found = elb.describe_listeners(ListenerArns=[listener])['Listeners'][0]['DefaultActions']
del oidc['AuthenticateOidcConfig']['ClientSecret']
assert found == [oidc, forward], found
refusal = refused(elb.modify_listener, ListenerArn=listener, DefaultActions=[oidc, forward])
oidc['AuthenticateOidcConfig']['UseExistingClientSecret'] = True
elb.modify_listener(ListenerArn=listener, DefaultActions=[oidc, forward])
elb.modify_rule(RuleArn=rule, Actions=[{'Type': 'forward', 'TargetGroupArn': green}])
found = elb.describe_rules(RuleArns=[rule])['Rules'][0]['Actions']
print(json.dumps([refusal, weights(found), found[0]['TargetGroupArn'] == green, found[0]['ForwardConfig']['TargetGroupStickinessConfig']]))";

    check(
        &server,
        lines,
        r#"[["ValidationError", 400, true], [["green", 1]], true, {"Enabled": false}]"#,
    );
    assert_eq!(
        server.with(|cloud| cloud.client_secret()).as_deref(),
        Some("s")
    );
}

#[test]
fn boto3_is_refused_as_aws_refuses() {
    let server = server();
    server.with(|cloud| {
        cloud.group("blue").most = 1;
        cloud.stop("i-7");
    });
    let lines = "\
one = lambda id: [{'Id': id, 'Port': 80}]
print(json.dumps([
  refused(elb.describe_target_health, TargetGroupArn=blue + '0'),
  refused(elb.register_targets, TargetGroupArn=blue, Targets=one('i-1') + one('i-2')),
  refused(elb.register_targets, TargetGroupArn=blue, Targets=one('i-7')),
  refused(elb.register_targets, TargetGroupArn=blue, Targets=one('10.0.0.1')),
  refused(elb.describe_listeners, ListenerArns=[listener + '0']),
  refused(elb.describe_rules, RuleArns=[rule + '0']),
  refused(elb.modify_rule, RuleArn=rule, Actions=[{'Type': 'forward', 'ForwardConfig': {'TargetGroups': [{'TargetGroupArn': blue, 'Weight': 1000}]}}]),
  refused(elb.describe_account_limits),
]))";
    check(
        &server,
        lines,
        r#"[["TargetGroupNotFound", 400, true], ["TooManyTargets", 400, true], ["InvalidTarget", 400, true], ["ValidationError", 400, true], ["ListenerNotFound", 400, true], ["RuleNotFound", 400, true], ["ValidationError", 400, true], ["InvalidAction", 400, true]]"#,
    );
}

#[test]
fn boto3_gets_nothing_without_the_right_signature() {
    let server = server();
    let lines = "print(json.dumps(refused(elb.describe_target_health, TargetGroupArn=blue)))";
    let refused = |key: [&str; 2], expected: &str| {
        let answer = script(&server, key, lines).ok();
        assert_eq!(answer.stdout.trim(), expected, "{}", answer.stderr);
    };
    let temporary = format!("{ACCESS_KEY}+token");

    refused([ACCESS_KEY, SECRET_KEY], "null");
    refused(
        [ACCESS_KEY, "wrong"],
        r#"["SignatureDoesNotMatch", 403, true]"#,
    );
    refused(
        ["unknown", SECRET_KEY],
        r#"["InvalidClientTokenId", 403, true]"#,
    );
    server.with(|cloud| cloud.key(ACCESS_KEY).token = Some("token".to_owned()));
    refused(
        [ACCESS_KEY, SECRET_KEY],
        r#"["InvalidClientTokenId", 403, true]"#,
    );
    refused([&temporary, SECRET_KEY], "null");
    server.with(|cloud| cloud.key(ACCESS_KEY).is_expired = true);
    refused([&temporary, SECRET_KEY], r#"["ExpiredToken", 403, true]"#);
    server.with(|cloud| {
        let key = cloud.key(ACCESS_KEY);
        (key.is_expired, key.allowed) = (false, vec!["RegisterTargets".to_owned()]);
    });
    refused([&temporary, SECRET_KEY], r#"["AccessDenied", 403, true]"#);
    server.with(|cloud| cloud.skew = jiff::SignedDuration::from_mins(20));
    refused(
        [&temporary, SECRET_KEY],
        r#"["SignatureDoesNotMatch", 403, true]"#,
    );
}

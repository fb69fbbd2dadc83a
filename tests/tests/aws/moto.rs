//! The built plugin against moto, which checks signatures and policies, and tells of targets and weights in AWS's words.

use std::time::Duration;

use cutover_tests::Moto;
use plugin_host::FailureClass;
use plugin_host::load_balancer::{Outcome, Phase};
use serde_json::Value;

use crate::account::{Account, failure, member, side};

/// Makes a network, two machines, a load balancer with two target groups, and two users, of which one has a policy.
const SETUP: &str = r#"
ec2, elb, iam = client("ec2"), client("elbv2"), client("iam")
vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=f"us-east-1{zone}")["Subnet"]["SubnetId"] for n, zone in ((1, "a"), (2, "b"))]
machines = ec2.run_instances(ImageId="ami-12c6146b", MinCount=2, MaxCount=2, SubnetId=subnets[0])["Instances"]
balancer = elb.create_load_balancer(Name="shop", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
group = lambda name: elb.create_target_group(Name=name, Protocol="HTTP", Port=8080, VpcId=vpc, TargetType="instance")["TargetGroups"][0]["TargetGroupArn"]
blue, green = group("shop-blue"), group("shop-green")
actions = [{"Type": "forward", "Order": 1, "ForwardConfig": {"TargetGroups": [{"TargetGroupArn": blue, "Weight": 100}, {"TargetGroupArn": green, "Weight": 0}],
  "TargetGroupStickinessConfig": {"Enabled": True, "DurationSeconds": 60}}}]
listener = elb.create_listener(LoadBalancerArn=balancer, Protocol="HTTP", Port=80, DefaultActions=actions)["Listeners"][0]["ListenerArn"]
rule = elb.create_rule(ListenerArn=listener, Priority=10, Conditions=[{"Field": "path-pattern", "Values": ["/api/*"]}], Actions=actions)["Rules"][0]["RuleArn"]
iam.create_user(UserName="cutover")
iam.put_user_policy(UserName="cutover", PolicyName="cutover", PolicyDocument=sys.argv[2])
iam.create_user(UserName="nobody")
keys = [iam.create_access_key(UserName=name)["AccessKey"] for name in ("cutover", "nobody")]
made = {"web-1": machines[0]["InstanceId"], "web-2": machines[1]["InstanceId"], "blue": blue, "green": green, "listener": listener, "rule": rule,
  "access_key": keys[0]["AccessKeyId"], "secret_key": keys[0]["SecretAccessKey"],
  "nobody_access_key": keys[1]["AccessKeyId"], "nobody_secret_key": keys[1]["SecretAccessKey"]}
"#;

/// The policy that the plugin's README has, for all resources.
fn policy() -> String {
    let readme = include_str!("../../../plugins/aws/README.md");
    let (_, rest) = readme.split_once("```json\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let mut policy: Value = serde_json::from_str(text).unwrap();
    for statement in policy["Statement"].as_array_mut().unwrap() {
        statement["Resource"] = "*".into();
    }
    policy.to_string()
}

async fn account_with(moto: &Moto, (access_key, secret_key): (&str, &str)) -> Account {
    let account = Account::load(&moto.endpoint, &[("secret-key", secret_key)]).await;
    account
        .with("access_key", access_key)
        .with("target_group", moto.made("blue"))
}

#[tokio::test]
async fn the_plugin_speaks_the_protocol_of_aws_with_the_policy_of_its_readme() {
    let moto = Moto::start(SETUP, &[&policy()]);
    let key = (moto.made("access_key"), moto.made("secret_key"));
    let account = account_with(&moto, key).await;
    let web = member("web-1", moto.made("web-1"), 8080);

    assert_eq!(account.examined(&web).await.unwrap().phase, Phase::Absent);
    let registered = account.register(&web).await;
    assert_eq!(registered.unwrap(), Outcome::Changed(Vec::new()));
    assert_eq!(account.phase(&web).await, (Phase::InService, None));
    assert_eq!(account.register(&web).await.unwrap(), Outcome::Unchanged);
    let deregistered = account.deregister(&web).await;
    assert_eq!(deregistered.unwrap(), Outcome::Changed(Vec::new()));
    assert_eq!(account.phase(&web).await.0, Phase::Absent);

    let sides = [
        side("blue", moto.made("blue"), &[web]),
        side(
            "green",
            moto.made("green"),
            &[member("web-2", moto.made("web-2"), 8080)],
        ),
    ];
    for place in ["listener", "rule"] {
        let account = account_with(&moto, key).await.with(place, moto.made(place));
        assert_eq!(account.percents(&sides).await, [100, 0], "{place}");
        for percents in [[80, 20], [0, 100], [100, 0]] {
            let set = account.set(&sides, None, percents).await;
            assert_eq!(set.unwrap(), Outcome::Changed(Vec::new()), "{place}");
            assert_eq!(account.percents(&sides).await, percents, "{place}");
        }
    }
    assert_eq!(account.delay().await, Some(Duration::from_secs(300)));

    // The same moto refuses what is not signed as it should be.
    let web = member("web-1", moto.made("web-1"), 8080);
    for (access_key, secret_key, code, hint) in [
        (
            moto.made("access_key"),
            "wrong",
            "aws.SignatureDoesNotMatch",
            "check the granted secret key",
        ),
        (
            "AKIAUNKNOWN",
            "wrong",
            "aws.InvalidClientTokenId",
            "check `access_key`",
        ),
        (
            moto.made("nobody_access_key"),
            moto.made("nobody_secret_key"),
            "aws.AccessDenied",
            "allow `elasticloadbalancing:DescribeTargetHealth`",
        ),
    ] {
        let account = account_with(&moto, (access_key, secret_key)).await;

        let denied = failure(account.register(&web).await);

        assert_eq!((denied.class, &*denied.code), (FailureClass::Denied, code));
        assert!(
            denied.message.contains("(request id `"),
            "{}",
            denied.message
        );
        let told = denied.hint.unwrap();
        assert!(told.starts_with(hint), "{told}");
    }
    let missing = moto.made("blue").replace("shop-blue", "shop-red");
    let account = account.with("target_group", missing);
    let refused = failure(account.status(&web).await);
    assert_eq!(refused.code, "aws.TargetGroupNotFound");
}

//! The fake has the vendor's shape: the vendor's own client for Python drives it.

use cutover_tests::cloud::python;
use serde_json::{Value, json};

use super::*;

/// What the client is told to do, and what it makes of the answers.
const CLIENT: &str = r#"
import json, sys
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions import exceptions
from huaweicloudsdkelb.v3 import *

endpoint, project, access_key, secret_key = sys.argv[1:5]
token = sys.argv[5] if len(sys.argv) > 5 else None

def client(access_key, secret_key, token=None):
    credentials = BasicCredentials(access_key, secret_key, project)
    if token:
        credentials = credentials.with_security_token(token)
    return ElbClient.new_builder().with_credentials(credentials).with_endpoint(endpoint).build()

def refusal(run):
    try:
        run()
    except exceptions.ServiceResponseException as error:
        return [error.status_code, error.error_code, error.error_msg, len(error.request_id)]
    return None

elb = client(access_key, secret_key, token)
told = {}
option = lambda weight: CreateMemberOption(address="10.0.0.1", protocol_port=8080, weight=weight)
create = lambda: elb.create_member(CreateMemberRequest("blue", CreateMemberRequestBody(option(7))))
made = create()
told["made"] = [made.status_code, made.member.address, made.member.protocol_port, made.member.weight, len(made.request_id)]
told["twice"] = refusal(create)
id = made.member.id
elb.create_member(CreateMemberRequest("blue", CreateMemberRequestBody(CreateMemberOption(address="10.0.0.2", protocol_port=8080))))
weigh = UpdateMemberRequest(id, "blue", UpdateMemberRequestBody(UpdateMemberOption(weight=0)))
told["weighed"] = elb.update_member(weigh).member.weight
found = elb.list_members(ListMembersRequest("blue", address=["10.0.0.1"], protocol_port=[8080]))
told["found"] = [[it.id == id, it.weight, it.operating_status] for it in found.members]
pages, marker = [], None
while True:
    page = elb.list_members(ListMembersRequest("blue", limit=1, marker=marker))
    pages.append([it.address for it in page.members])
    marker = page.page_info.next_marker
    if not marker:
        break
told["pages"] = pages
everywhere = elb.list_all_members(ListAllMembersRequest(address=["10.0.0.1"]))
told["everywhere"] = [[it.pool_id, it.address] for it in everywhere.members]
told["shown"] = elb.show_member(ShowMemberRequest("blue", id)).member.updated_at.endswith("Z")
told["deleted"] = elb.delete_member(DeleteMemberRequest("blue", id)).status_code
told["gone"] = refusal(lambda: elb.delete_member(DeleteMemberRequest("blue", id)))
pool = elb.show_pool(ShowPoolRequest("blue")).pool
told["pool"] = [pool.lb_algorithm, pool.connection_drain.enable, pool.member_deletion_protection_enable, [it.id for it in pool.listeners], len(pool.members)]
told["no pool"] = refusal(lambda: elb.show_pool(ShowPoolRequest("red")))
switch = UpdateListenerRequest("listener-1", UpdateListenerRequestBody(UpdateListenerOption(default_pool_id="green")))
told["switched"] = elb.update_listener(switch).listener.default_pool_id
listener = elb.show_listener(ShowListenerRequest("listener-1")).listener
told["listener"] = [listener.default_pool_id, listener.enhance_l7policy_enable, listener.protocol]
balancer = elb.show_load_balancer(ShowLoadBalancerRequest(listener.loadbalancers[0].id)).loadbalancer
told["balancer"] = [balancer.guaranteed, balancer.ip_target_enable]
config = [UpdateRedirectPoolsConfig("blue", "80"), UpdateRedirectPoolsConfig("green", "20")]
weigh = UpdateL7PolicyRequest("policy-1", UpdateL7PolicyRequestBody(UpdateL7PolicyOption(redirect_pools_config=config)))
policy = elb.update_l7_policy(weigh).l7policy
told["policy"] = [policy.action, policy.provisioning_status, [[it.pool_id, it.weight] for it in policy.redirect_pools_config]]
twice = UpdateL7PolicyOption(redirect_pools_config=[config[0], config[0]])
told["no policy"] = refusal(lambda: elb.update_l7_policy(UpdateL7PolicyRequest("policy-1", UpdateL7PolicyRequestBody(twice))))
policies = elb.list_l7_policies(ListL7PoliciesRequest(listener_id=["listener-1"])).l7policies
told["policies"] = [it.id for it in policies]
rules = elb.list_l7_rules(ListL7RulesRequest("policy-1")).rules
told["rules"] = [[it.type, it.compare_type, it.value, it.invert] for it in rules]
told["wrong key"] = refusal(lambda: client(access_key, "wrong").show_pool(ShowPoolRequest("blue")))
told["no key"] = refusal(lambda: client("AKNOBODY", secret_key).show_pool(ShowPoolRequest("blue")))
print(json.dumps(told))
"#;

fn drive(cloud: &CloudServer<HuaweiElb>, credentials: &[&str]) -> Value {
    let endpoint = cloud.endpoint();
    let arguments = [&[endpoint.as_str(), HuaweiElb::PROJECT], credentials].concat();
    let answer = python(CLIENT, &arguments).ok();
    serde_json::from_str(&answer.stdout).unwrap()
}

#[test]
fn the_vendors_own_client_understands_every_answer() {
    let elb = HuaweiElb::new(&["blue", "green"]).with_policy(&[("blue", 100)]);
    let cloud = CloudServer::start(elb);

    let told = drive(&cloud, &[HuaweiElb::ACCESS_KEY, HuaweiElb::SECRET_KEY]);

    let iam = |what: &str| format!("Incorrect IAM authentication information: {what}");
    let expected = json!({
        "made": [201, "10.0.0.1", 8080, 7, 32],
        "twice": [409, "ELB.8907", "member with address 10.0.0.1 and protocol_port 8080 already exists in pool blue", 32],
        "weighed": 0,
        "found": [[true, 0, "ONLINE"]],
        "pages": [["10.0.0.1"], ["10.0.0.2"]],
        "everywhere": [["blue", "10.0.0.1"]],
        "shown": true,
        "deleted": 204,
        "gone": [404, "ELB.8904", "member member-1 could not be found.", 32],
        "pool": ["ROUND_ROBIN", false, false, ["listener-1"], 1],
        "no pool": [404, "ELB.8904", "pool red could not be found.", 32],
        "switched": "green",
        "listener": ["green", true, "HTTP"],
        "balancer": [true, true],
        "policy": ["REDIRECT_TO_POOL", "ACTIVE", [["blue", 80], ["green", 20]]],
        "no policy": [400, "ELB.8902", "Duplicate pool in redirect_pools_config.", 32],
        "policies": ["policy-1"],
        "rules": [["PATH", "STARTS_WITH", "/", false]],
        "wrong key": [401, "APIGW.0301", iam("verify aksk signature fail"), 32],
        "no key": [401, "APIGW.0301", iam("ak AKNOBODY not exist"), 32],
    });
    for (name, expected) in expected.as_object().unwrap() {
        assert_eq!(&told[name], expected, "{name}");
    }
    assert_eq!(
        told.as_object().unwrap().len(),
        expected.as_object().unwrap().len()
    );
}

#[test]
fn the_vendors_own_client_signs_its_session_token_too() {
    let mut elb = HuaweiElb::new(&["blue", "green"]).with_policy(&[("blue", 100)]);
    elb.add_temporary_key("AKTEMPORARY", "SKTEMPORARY", "a token");
    let cloud = CloudServer::start(elb);

    let told = drive(&cloud, &["AKTEMPORARY", "SKTEMPORARY", "a token"]);

    assert_eq!(told["deleted"], 204);
}

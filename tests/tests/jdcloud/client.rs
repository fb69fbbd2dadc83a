//! The fake has the shape of JD Cloud: its own client for Python drives it.

use cutover_tests::cloud::jdcloud::JdCloud;
use cutover_tests::cloud::{CloudServer, python};

const SCRIPT: &str = r"
import json, sys
from jdcloud_sdk.core.config import Config
from jdcloud_sdk.core.credential import Credential
from jdcloud_sdk.core.logger import Logger, FATAL
from jdcloud_sdk.services.lb.client.LbClient import LbClient
from jdcloud_sdk.services.lb.apis import (
    CreateTargetGroupRequest as create, DeRegisterTargetsRequest as deregister, DeleteTargetGroupRequest as delete,
    DescribeBackendRequest as backend, DescribeTargetGroupsRequest as groups, DescribeTargetHealthRequest as health,
    DescribeTargetsRequest as targets, RegisterTargetsRequest as register, UpdateBackendRequest as attach,
    UpdateTargetsRequest as update)
from jdcloud_sdk.services.common.models.Filter import Filter

endpoint, secret = sys.argv[1:]
client = LbClient(Credential('ak', secret), Config(endpoint, 'http'), Logger(FATAL))
region = 'cn-north-1'
said = {}

def ask(name, request):
    response = client.send(request)
    assert response.request_id or response.error, name
    if response.error is not None:
        said[name] = [response.error.code, response.error.status]
        return {}
    said[name] = response.result
    return response.result or {}

found = ask('backend', backend.DescribeBackendRequest(backend.DescribeBackendParameters(region, 'backend-1')))
if 'backend' not in found:
    print(json.dumps(said))
    sys.exit()
parameters = create.CreateTargetGroupParameters(region, 'deploy_R_web_a1b2c3', 'alb-1')
group = ask('create', create.CreateTargetGroupRequest(parameters))['targetGroupId']
specs = [{'instanceId': 'i-%d' % n, 'type': 'vm', 'port': 8080, 'weight': 10} for n in range(3)]
ask('register', register.RegisterTargetsRequest(register.RegisterTargetsParameters(region, group, specs)))
ask('again', register.RegisterTargetsRequest(register.RegisterTargetsParameters(region, group, specs[:1])))
parameters = attach.UpdateBackendParameters(region, 'backend-1')
parameters.setTargetGroupIds([group])
ask('attach', attach.UpdateBackendRequest(parameters))
parameters = targets.DescribeTargetsParameters(region, group)
parameters.setFilters([{'name': 'instanceId', 'operator': 'eq', 'values': ['i-1']}])
one = ask('targets', targets.DescribeTargetsRequest(parameters))['targets'][0]['targetId']
ask('update', update.UpdateTargetsRequest(update.UpdateTargetsParameters(region, group, [{'targetId': one, 'weight': 0}])))
ask('health', health.DescribeTargetHealthRequest(health.DescribeTargetHealthParameters(region, 'backend-1')))
ask('partly', deregister.DeRegisterTargetsRequest(deregister.DeRegisterTargetsParameters(region, group, [one, 'target-none'])))
ask('deregister', deregister.DeRegisterTargetsRequest(deregister.DeRegisterTargetsParameters(region, group, [one])))
parameters = targets.DescribeTargetsParameters(region, group)
parameters.setPageSize(10)
ask('left', targets.DescribeTargetsRequest(parameters))
ask('groups', groups.DescribeTargetGroupsRequest(groups.DescribeTargetGroupsParameters(region)))
ask('in use', delete.DeleteTargetGroupRequest(delete.DeleteTargetGroupParameters(region, group)))
print(json.dumps(said))
";

fn drive(secret: &str) -> serde_json::Value {
    let cloud = CloudServer::start(JdCloud::new());
    let answer = python(SCRIPT, &[&cloud.address().to_string(), secret]).ok();
    let last = answer.stdout.lines().last().unwrap();
    serde_json::from_str(last).unwrap()
}

#[test]
fn the_vendors_own_client_makes_groups_registers_weighs_and_switches() {
    let said = drive("sk");

    assert_eq!(said["backend"]["backend"]["loadBalancerType"], "alb");
    assert_eq!(said["again"], serde_json::json!([409, "ALREADY_EXISTS"]));
    let targets = &said["targets"];
    assert_eq!(
        (&targets["totalCount"], &targets["targets"][0]["instanceId"]),
        (&1.into(), &"i-1".into())
    );
    let health = said["health"]["targetHealths"].as_array().unwrap();
    let weights: Vec<_> = health
        .iter()
        .map(|it| it["weight"].as_u64().unwrap())
        .collect();
    assert_eq!(weights, [10, 0, 10]);
    assert!(
        health.iter().all(|it| it["status"] == "healthy"),
        "{health:?}"
    );
    assert_eq!(said["partly"][0], 404, "all or nothing");
    assert_eq!(said["left"]["totalCount"], 2);
    assert_eq!(
        said["groups"]["targetGroups"][0]["targetGroupName"],
        "deploy_R_web_a1b2c3"
    );
    assert_eq!(
        said["in use"],
        serde_json::json!([400, "FAILED_PRECONDITION"])
    );
}

#[test]
fn a_signature_of_the_vendors_own_client_with_another_secret_is_refused() {
    assert_eq!(
        drive("other")["backend"],
        serde_json::json!([401, "UNAUTHENTICATED"])
    );
}

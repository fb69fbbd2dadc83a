//! Limits of the clouds that an appspec may also be meant for. cutover has no such limits, so they are warnings.

use std::time::Duration;

use super::dialect::Dialect;
use super::file::Located;
use crate::duration;
use crate::problem::Collector;

/// What AWS CodeDeploy gives the scripts of one event together.
const AWS_EVENT: Duration = Duration::from_secs(3600);

/// What JD CodeDeploy gives one host for everything.
const JD_HOST: Duration = Duration::from_secs(300);

/// Tells of timeouts beyond what the dialect's own cloud allows.
pub(super) fn check(located: &Located, problems: &mut Collector) {
    for (event, scripts) in &located.appspec.hooks {
        let places = located
            .scripts
            .get(event)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let stated = scripts
            .iter()
            .zip(places)
            .filter_map(|(script, at)| Some((script.timeout, at.timeout?)));
        let mut sum = Duration::ZERO;
        for (timeout, at) in stated {
            match located.dialect {
                Dialect::Aws => {
                    let before = sum;
                    sum = sum.saturating_add(timeout);
                    if sum > AWS_EVENT && before <= AWS_EVENT {
                        let message = format!(
                            "the timeouts of `{event}` add up to more than 1h, which is what AWS CodeDeploy gives an event"
                        );
                        problems.warn(at, message, "cutover keeps to the timeout of each script");
                    }
                }
                Dialect::Jd if timeout > JD_HOST => {
                    let message = format!(
                        "the timeout of {} is longer than the 5m that JD CodeDeploy gives a host for all scripts",
                        duration::print(timeout)
                    );
                    problems.warn(at, message, "cutover keeps to the timeout of each script");
                }
                Dialect::Jd => {}
            }
        }
    }
}

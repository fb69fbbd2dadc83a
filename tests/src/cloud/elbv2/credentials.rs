//! Who may call: the signature of every request is recomputed, and checked against the keys and their policies.

use jiff::{SignedDuration, Timestamp};

use super::super::message::Request;
use super::super::sigv4::{Malformed, Signature};
use super::call::Refusal;
use super::cloud::{ACCOUNT, Elbv2, REGION, SERVICE};

/// How far the clocks may be apart.
const SKEW: SignedDuration = SignedDuration::from_mins(15);

impl Elbv2 {
    /// Refuses what is not signed as it should be, in the order in which AWS looks.
    pub(super) fn authenticate(&self, request: &Request, action: &str) -> Result<(), Refusal> {
        let denied = |code: &'static str, message: &str| Err(Refusal::new(403, code, message));
        let signature = match Signature::of(request) {
            Ok(signature) => signature,
            Err(Malformed::Missing) => {
                return denied(
                    "MissingAuthenticationToken",
                    "Request is missing Authentication Token",
                );
            }
            Err(Malformed::Incomplete) => {
                return Err(Refusal::new(
                    400,
                    "IncompleteSignature",
                    "The request signature does not conform to AWS standards",
                ));
            }
        };
        let Some(key) = self.keys.get(&signature.access_key) else {
            return denied(
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            );
        };
        if key.token.as_deref() != request.header("x-amz-security-token") {
            return denied(
                "InvalidClientTokenId",
                "The security token included in the request is invalid",
            );
        }
        if key.is_expired {
            return denied(
                "ExpiredToken",
                "The security token included in the request is expired",
            );
        }
        let now = Timestamp::now() + self.skew;
        let off = now.duration_since(signature.at);
        let basic = |time: Timestamp| time.strftime("%Y%m%dT%H%M%SZ").to_string();
        if off > SKEW {
            let message = format!(
                "Signature expired: {} is now earlier than {} ({} - 15 min.)",
                signature.date,
                basic(now - SKEW),
                basic(now)
            );
            return denied("SignatureDoesNotMatch", &message);
        }
        if off < -SKEW {
            let message = format!(
                "Signature not yet current: {} is still later than {} ({} + 15 min.)",
                signature.date,
                basic(now + SKEW),
                basic(now)
            );
            return denied("SignatureDoesNotMatch", &message);
        }
        if !signature.is_good(request, &key.secret, REGION, SERVICE) {
            return denied(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and \
                 signing method. Consult the service documentation for details.",
            );
        }
        if !key.allowed.is_empty() && !key.allowed.iter().any(|allowed| allowed == action) {
            let message = format!(
                "User: arn:aws:iam::{ACCOUNT}:user/cutover is not authorized to perform: {SERVICE}:{action} because no identity-based \
                 policy allows the {SERVICE}:{action} action"
            );
            return denied("AccessDenied", &message);
        }
        Ok(())
    }
}

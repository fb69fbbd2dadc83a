//! Signs requests with a key that stays in the host.
//!
//! Each vendor's scheme is a module: [`aws`] (SigV4, also for every service that speaks S3), [`jdcloud`] and [`huawei`].
//! What they share: the request is written down in a canonical form, the form is hashed, and the hash is signed with
//! [`Key::hmac_sha256`], which the host computes. So the key never is in the plugin's memory. Keys that are derived from it,
//! and that are good for one day and one service, are.
//!
//! A session token is a secret as well, which stands in a header that the host fills in. Where a scheme signs that header,
//! [`Key::digest`] lets the host hash the canonical form.
//!
//! ```no_run
//! use cutover_plugin_sdk::http::{Request, send};
//! use cutover_plugin_sdk::signing::{Credentials, aws};
//!
//! # fn main() -> Result<(), cutover_plugin_sdk::Failure> {
//! let credentials = Credentials::granted("AKIDEXAMPLE", "secret-key", Some("session-token"))?;
//! let mut request = Request::get("https://bucket.s3.eu-central-1.amazonaws.com/shop/1.2.0.tar.gz");
//!
//! aws::sign(&mut request, &credentials, "eu-central-1", "s3", cutover_plugin_sdk::now())?;
//! let response = send(&request)?;
//! # Ok(())
//! # }
//! ```
//!
//! Times and nonces are arguments, so that a signature can be tested: [`Plain`] is a key for such tests.

pub mod aws;
mod canonical;
pub mod huawei;
pub mod jdcloud;
mod key;
mod nonce;

pub use key::{Credentials, Key, Plain, Secrets};
pub use nonce::nonce;

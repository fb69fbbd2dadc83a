//! Packages on the file system of the machine that runs the release: `file:///PATH`, an archive or a folder.
//!
//! The plugin reads nothing itself. It says what the reference means, and the host takes the bytes from there.

use cutover_plugin_sdk::{
    Failure, FetchPlan, OpContext, PackageSource, Plugin, Resolved, export, media_type_of,
    split_digest, version_in,
};
use serde::Deserialize;

/// What a reference means that has no archive's ending.
const FOLDER: &str = "inode/directory";

struct FilePackage;

/// There is nothing to configure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

impl Plugin for FilePackage {
    type Config = Config;
}

impl PackageSource for FilePackage {
    fn resolve(_ctx: &OpContext, reference: &str) -> Result<Resolved, Failure> {
        let (url, digest) = split_digest(reference)?;
        let path = path_of(url)?;
        Ok(Resolved {
            pinned: reference.to_owned(),
            version: version_in(path),
            media_type: media_type_of(path).unwrap_or(FOLDER).to_owned(),
            size: None,
            digest,
            attributes: Vec::new(),
        })
    }

    fn plan_fetch(_ctx: &OpContext, pinned: &str) -> Result<FetchPlan, Failure> {
        let (url, _) = split_digest(pinned)?;
        path_of(url)?;
        Ok(FetchPlan::from(url.to_owned()))
    }
}

/// The absolute path of a `file:` URL.
fn path_of(url: &str) -> Result<&str, Failure> {
    let path = url
        .strip_prefix("file://")
        .filter(|path| path.starts_with('/'))
        .ok_or_else(|| {
            Failure::invalid(
                "file-package.reference",
                format!("`{url}` is no `file:` URL of this machine"),
            )
            .hint("write `file:///` and the absolute path of an archive or a folder")
        })?;
    if path.contains('\0') || path.split('/').any(|part| part == "..") {
        return Err(Failure::invalid(
            "file-package.reference",
            format!("`{url}` is not a plain path"),
        )
        .hint("write the path without `..`"));
    }
    Ok(path)
}

export!(FilePackage: PackageSource);

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> OpContext {
        OpContext {
            run_id: String::new(),
            step_id: String::new(),
            idempotency_key: String::new(),
            attempt: 1,
            deadline: 0,
            dry_run: false,
            traceparent: None,
        }
    }

    #[test]
    fn a_name_tells_version_and_format() {
        let hex = "a".repeat(64);

        let resolved = FilePackage::resolve(
            &context(),
            &format!("file:///srv/app-1.2.0.tar.gz#sha256={hex}"),
        )
        .unwrap();

        assert_eq!(resolved.version.as_deref(), Some("1.2.0"));
        assert_eq!(resolved.media_type, "application/gzip");
        assert_eq!(resolved.digest.unwrap().hex, hex);
        let FetchPlan::Download(downloads) =
            FilePackage::plan_fetch(&context(), &resolved.pinned).unwrap()
        else {
            panic!("a file is streamed");
        };
        assert_eq!(downloads[0].url, "file:///srv/app-1.2.0.tar.gz");
    }

    #[test]
    fn a_name_without_an_ending_is_a_folder() {
        let resolved = FilePackage::resolve(&context(), "file:///srv/app").unwrap();

        assert_eq!(
            (resolved.media_type.as_str(), resolved.version),
            (FOLDER, None)
        );
    }

    #[test]
    fn other_references_are_refused() {
        for reference in [
            "srv/app.zip",
            "file:srv/app.zip",
            "file://host/app.zip",
            "http://h/a",
            "file:///srv/../etc",
        ] {
            assert!(
                FilePackage::resolve(&context(), reference).is_err(),
                "{reference}"
            );
        }
    }
}

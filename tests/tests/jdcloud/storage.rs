//! Packages in JD Cloud's object storage, for which stands one that speaks the same protocol and checks every signature.

use cutover_tests::SeaweedFs;

use super::*;

const PACKAGE: &str = "jd-oss://shop/jdcloud/shop-1.4.0.tar.gz";

/// A workspace whose `jd-oss://` is at the storage's endpoint.
fn shop(storage: &SeaweedFs, access_key: &str) -> Site {
    let site = Site::with_instances(1, "");
    let groups = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let endpoint = &storage.endpoint;
    site.write(
        "cutover.yaml",
        &format!(
            "plugins:
  jdcloud:
    component: jdcloud
    grants:
      http: [\"{endpoint}\"]
      secrets: [secret-key: file:secret.key]
    config: {{storage: {{endpoint: \"{endpoint}\", access_key: {access_key}}}}}
{groups}"
        ),
    );
    site.write("secret.key", SeaweedFs::SECRET_KEY);
    site
}

#[test]
fn a_package_of_the_object_storage_is_deployed() {
    let storage = SeaweedFs::shared();
    let site = shop(&storage, SeaweedFs::ACCESS_KEY);
    site.traced_package("v1", "1.4.0", "");
    site.pack("v1", "v1.tar.gz");
    let archive = site.path("v1.tar.gz");
    storage
        .run(&format!(
            "s3.put_object(Bucket='shop', Key='jdcloud/shop-1.4.0.tar.gz', Body=open('{}', 'rb').read())",
            archive.display()
        ))
        .unwrap();

    site.cutover(&["check"]).ok();
    site.cutover(&["deploy", "shop/web", "--package", PACKAGE])
        .ok();

    let revision = site.report()["deployments"][0]["revision"].clone();
    assert_eq!(revision["version"], "1.4.0");
    let source = revision["source"].as_str().unwrap();
    assert!(
        source.starts_with(PACKAGE) && !source.contains("Signature"),
        "{source}"
    );
}

#[test]
fn a_wrong_key_of_the_object_storage_is_told_with_its_words() {
    let storage = SeaweedFs::shared();
    let site = shop(&storage, "another");

    let answer = site.cutover(&["deploy", "shop/web", "--package", PACKAGE]);

    assert_eq!(answer.code, 3, "{}", answer.stderr);
    assert!(
        answer.stderr.contains("InvalidAccessKeyId"),
        "{}",
        answer.stderr
    );
    site.assert_untouched();
}

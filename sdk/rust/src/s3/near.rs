//! What is there in place of what is not: names that look like the one that was asked for.

use super::answer::elements;
use super::client::Client;
use super::reference::Reference;
use crate::Failure;
use crate::http::{Request, percent_encode};
use crate::signing::Key;

/// How many names a message has.
const NAMED: usize = 3;
/// The most names that are looked at.
const MOST: usize = 1000;
/// What names look like each other up to, in characters.
const LONGEST: usize = 200;

/// Adds the objects in the same folder that look like the one that is not there, where the bucket may be listed.
pub(super) fn with_keys<K: Key>(
    client: &Client<'_, K>,
    reference: &Reference<'_>,
    failure: Failure,
) -> Failure {
    if failure.hint.is_some() {
        return failure;
    }
    let key = reference.key;
    let folder = key.rfind('/').map_or("", |at| &key[..=at]);
    let url = format!(
        "{}?list-type=2&max-keys={MOST}&prefix={}",
        client.url(reference.bucket, ""),
        percent_encode(folder)
    );
    let Some(text) = list(client, url) else {
        return failure;
    };
    let keys: Vec<_> = elements(&text, "Key").take(MOST).collect();
    let place = match folder {
        "" => format!("the bucket `{}`", reference.bucket),
        folder => format!("`{folder}`"),
    };
    if keys.is_empty() {
        return failure.hint(format!("{place} has no object at all"));
    }
    failure.hint(format!("{place} has {}", named(key, &keys)))
}

/// Adds the buckets that look like the one that is not there, where they may be listed.
pub(super) fn with_buckets<K: Key>(
    client: &Client<'_, K>,
    reference: &Reference<'_>,
    failure: Failure,
) -> Failure {
    let Some(text) = list(client, client.root()) else {
        return failure;
    };
    let buckets: Vec<_> = elements(&text, "Name").take(MOST).collect();
    if buckets.is_empty() {
        return failure.hint("these credentials own no bucket at all");
    }
    let named = named(reference.bucket, &buckets);
    failure.hint(format!("the buckets of these credentials are {named}"))
}

/// The list at a URL. Why there is none is of no matter: the failure that it would explain is told anyhow.
fn list<K: Key>(client: &Client<'_, K>, url: String) -> Option<String> {
    let answer = client.ask(Request::get(url)).ok()?;
    (answer.status == 200).then(|| answer.text().into_owned())
}

/// The names that are most like one, most like it first.
fn named(wanted: &str, names: &[String]) -> String {
    let mut names: Vec<_> = names.iter().collect();
    names.sort_by_key(|name| distance(wanted, name));
    let more = names.len().saturating_sub(NAMED);
    let shown: Vec<_> = names
        .iter()
        .take(NAMED)
        .map(|name| format!("`{name}`"))
        .collect();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// How many characters have to be put in, taken away or replaced to make one text of another.
fn distance(one: &str, other: &str) -> usize {
    let [one, other] = [one, other].map(|text| text.chars().take(LONGEST).collect::<Vec<_>>());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, a) in one.iter().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (left, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[left + 1];
            row[left + 1] = replaced.min(diagonal + 1).min(row[left] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_most_like_it_is_named_first() {
        let names = [
            "zebra.zip",
            "app-1.2.0.tgz",
            "app-1.2.1.tgz",
            "app-1.2.1.zip",
            "b",
        ];
        let names = names.map(str::to_owned);

        assert_eq!(
            named("app-1.2.1.tar.gz", &names),
            "`app-1.2.1.tgz`, `app-1.2.0.tgz`, `app-1.2.1.zip` and 2 more"
        );
        assert_eq!(named("x", &names[..1]), "`zebra.zip`");
        assert_eq!((distance("", "ab"), distance("kitten", "sitting")), (2, 3));
    }
}

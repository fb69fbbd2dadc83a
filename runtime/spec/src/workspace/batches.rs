//! How many instances go together, held against the instances that there are.

use model::{Amount, Batching};

use super::sides::{Members, Total};
use super::strategy::Kind;
use crate::fields::{Field, Fields};
use crate::problem::{Collector, excerpt};
use crate::yaml::Value;

/// `concurrency` or `batches`, which exclude each other.
pub(super) fn together(
    fields: &Fields<'_>,
    kind: Option<Kind>,
    members: &Members,
    problems: &mut Collector,
) -> Option<Batching> {
    let concurrency = match fields.get("concurrency") {
        Some(field) => field.amount(problems),
        None => Some(Amount::Count(1)),
    };
    let Some(field) = fields.get("batches") else {
        return concurrency.map(Batching::Window);
    };
    let batches = match &field.node.value {
        Value::Sequence(_) => growing(field, members, problems),
        _ => even(field, problems),
    };
    // A canary has neither, and is told so for each of them.
    if let Some(other) = fields.get("concurrency")
        && kind != Some(Kind::Canary)
    {
        problems.error_with_hint(
            field.name_at.max(other.name_at),
            "`concurrency` and `batches` exclude each other",
            "keep `concurrency` for a sliding window, `batches` where each batch ends before the next begins",
        );
        return None;
    }
    batches
}

/// A first batch and the others. Without a kind, or with another one, the numbers are not held against the instances.
pub(super) fn canary(
    fields: &Fields<'_>,
    kind: Option<Kind>,
    members: &Members,
    problems: &mut Collector,
) -> Option<Batching> {
    let mut number = |name: &str| match fields.get(name) {
        Some(field) => field.number(1..=u64::MAX, problems),
        None => Some(1),
    };
    let (first, rest) = (number("first_batch"), number("remaining_batches"));
    let total = members.totals.first();
    if let Some(total) = total.filter(|_| kind == Some(Kind::Canary)) {
        let at = |name: &str| fields.get(name).map_or(fields.at, Field::at);
        if total.count < 2 {
            problems.error_with_hint(
                at("type"),
                format!("a canary needs at least 2 instances, and {total}"),
                "add instances, or set `type: rolling`",
            );
            return None;
        }
        let count = total.count as u64;
        let first = first?;
        if first >= count {
            let expected = up_to(count - 1);
            let message = format!(
                "`first_batch`: expected {expected}, found `{first}`: {total}, and one has to remain"
            );
            problems.error(at("first_batch"), message);
            return None;
        }
        let rest = rest?;
        if rest > count - first {
            let expected = up_to(count - first);
            let message = format!(
                "`remaining_batches`: expected {expected}, found `{rest}`: {total}, {first} of them in the first batch"
            );
            problems.error(at("remaining_batches"), message);
            return None;
        }
    }
    // A number that was not held against the instances belongs to a file with another problem.
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let (first, rest) = (number(first?), number(rest?));
    Some(Batching::FirstThenEven { first, rest })
}

fn up_to(most: u64) -> String {
    match most {
        1 => "`1`".to_owned(),
        _ => format!("a number from 1 to {most}"),
    }
}

/// How many instances have to be healthy at any moment. It has to leave one that may start.
pub(super) fn minimum_healthy(
    field: Field<'_>,
    kind: Option<Kind>,
    members: &Members,
    problems: &mut Collector,
) -> Option<Amount> {
    let amount = field.amount(problems)?;
    let all = members
        .totals
        .iter()
        .find(|total| amount.of(total.count) >= total.count);
    if let Some(total) = all.filter(|_| kind != Some(Kind::BlueGreen)) {
        let message = format!(
            "`minimum_healthy`: with `{amount}` no instance could ever start: {total}, and none of them is to spare"
        );
        let hint = match total.count {
            0 | 1 => "leave it out, or add instances".to_owned(),
            count => format!("use at most `{}`", count - 1),
        };
        problems.error_with_hint(field.at(), message, hint);
        return None;
    }
    Some(amount)
}

fn even(field: Field<'_>, problems: &mut Collector) -> Option<Batching> {
    let text = field.scalar().map_or("", |(text, _)| text);
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let count = text.parse().ok().filter(|count| is_number && *count > 0);
    if count.is_none() {
        let message = field.mismatch_message(
            "a number of batches such as `3`, or a list such as `[1, 50%, 100%]`",
        );
        if text.ends_with('%') {
            let hint = format!(
                "for that many at a time write `concurrency: {}`",
                excerpt(text)
            );
            problems.error_with_hint(field.at(), message, hint);
        } else {
            problems.error(field.at(), message);
        }
    }
    count.map(Batching::Even)
}

/// Cumulative amounts, the last of which is everything.
fn growing(field: Field<'_>, members: &Members, problems: &mut Collector) -> Option<Batching> {
    let items = field.items("amounts", problems);
    if items.is_empty() {
        problems.error_with_hint(
            field.at(),
            "`batches` is an empty list",
            "say how far each batch reaches, for example `[1, 10%, 50%, 100%]`",
        );
        return None;
    }
    let amounts: Vec<_> = items.iter().map(|item| item.amount(problems)).collect();
    let amounts: Vec<_> = amounts.into_iter().collect::<Option<_>>()?;
    let mut is_right = true;
    for (pair, item) in amounts.windows(2).zip(&items[1..]) {
        if let Some(message) = shrinking(pair[0], pair[1], &members.totals) {
            problems.error_with_hint(
                item.at(),
                message,
                "each amount says how many instances are done by then, those of earlier batches included",
            );
            is_right = false;
        }
    }
    if let (Some(amount), Some(item)) = (amounts.last(), items.last())
        && let Some(message) = incomplete(*amount, &members.totals)
    {
        problems.error_with_hint(item.at(), message, "end the list with `100%`");
        is_right = false;
    }
    is_right.then_some(Batching::Growing(amounts))
}

/// Why `after` does not follow `before`. Shares may round to the same number of instances; that makes one batch less.
fn shrinking(before: Amount, after: Amount, totals: &[Total]) -> Option<String> {
    let grows = match (before, after) {
        (Amount::Count(before), Amount::Count(after)) => before < after,
        (Amount::Percent(before), Amount::Percent(after)) => before < after,
        _ => true,
    };
    if !grows {
        return Some(format!(
            "`batches`: the list has to grow, and `{after}` comes after `{before}`"
        ));
    }
    let reached = |amount: Amount, total: &Total| amount.of(total.count).min(total.count);
    let total = totals
        .iter()
        .find(|total| reached(after, total) < reached(before, total))?;
    Some(format!(
        "`batches`: the list has to grow, and `{after}` ({}) comes after `{before}` ({}): {total}",
        reached(after, total),
        reached(before, total)
    ))
}

/// Why a list must not end with the amount.
fn incomplete(last: Amount, totals: &[Total]) -> Option<String> {
    match last {
        Amount::Percent(100) => None,
        Amount::Percent(_) => Some(format!(
            "`batches`: the list ends with `{last}`, and has to end with all instances"
        )),
        Amount::Count(count) => totals
            .iter()
            .find(|total| total.count != count as usize)
            .map(|total| format!("`batches`: the list ends with `{last}`, and {total}")),
    }
}

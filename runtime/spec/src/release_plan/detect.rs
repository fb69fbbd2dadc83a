//! Telling a release plan from other files.

/// Whether a text is likely a release plan: one of its outermost keys is that of a plan's items, in whatever case.
#[must_use]
pub fn is_likely(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}');
    if text.starts_with('{') && text.contains("\"deployPlanItems\"") {
        return true;
    }
    text.lines().any(|line| {
        let line = line.trim_start_matches('{').trim_start_matches(['"', '\'']);
        let Some((key, rest)) = line.split_at_checked("deployPlanItems".len()) else {
            return false;
        };
        let rest = rest.trim_start_matches(['"', '\'']).trim_start();
        key.eq_ignore_ascii_case("deployPlanItems") && rest.starts_with(':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_plan_by_its_items() {
        for text in [
            "deployPlanItems:\n",
            "comment: x\r\ndeployPlanItems : []\r\n",
            "\u{feff}deployplanitems: []",
            "{\"comment\": \"x\", \"deployPlanItems\": []}",
            "comment: |\n  long\n'deployPlanItems': []\n",
        ] {
            assert!(is_likely(text), "{text}");
        }
        for text in [
            "",
            "comment: x\n",
            "applications:\n  deployPlanItems: x\n",
            "# deployPlanItems:\n",
            "deployPlanItemsX: []\n",
            "发布计划发布计划: 1\n",
        ] {
            assert!(!is_likely(text), "{text}");
        }
    }
}

//! One entry of a map, where HAProxy looks it up (its memory) and where it outlives a reload (the map's file).
//!
//! The file is written first. A reload between the two writes then leads to the wanted state instead of back, and when
//! HAProxy refuses the entry, the file can be put back before anything read it. A reload that began before may still
//! leave the two apart, as does a call that ends between the writes, so both are read back.

use cutover_plugin_sdk::{Failure, Outcome, info};

use crate::config::Entry;
use crate::runtime_api::{Control, order, refused};

/// Text files in granted directories.
pub(crate) trait Files {
    fn read(&self, directory: &str, file: &str) -> Result<Option<String>, Failure>;
    fn write(&self, directory: &str, file: &str, text: &str) -> Result<(), Failure>;
}

/// One entry and the places that hold it.
pub(crate) struct Map<'a> {
    pub(crate) control: &'a dyn Control,
    pub(crate) files: &'a dyn Files,
    pub(crate) entry: &'a Entry,
}

/// What the places hold. No value: the entry is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Present {
    /// What requests follow.
    pub(crate) running: Option<String>,
    /// Nothing where no directory is named.
    stored: Option<Option<String>>,
}

impl Present {
    fn is(&self, value: Option<&str>) -> bool {
        self.running.as_deref() == value && self.stored().is_none_or(|stored| stored == value)
    }

    fn stored(&self) -> Option<Option<&str>> {
        self.stored.as_ref().map(Option::as_deref)
    }

    /// The value of the file, where it is another one than that of the memory.
    pub(crate) fn other(&self) -> Option<Option<&str>> {
        self.stored()
            .filter(|stored| *stored != self.running.as_deref())
    }

    /// The value; empty where the entry is not there. Of places that differ ` LENGTH:MEMORY:FILE`, which is no value, for
    /// none begins with a space.
    pub(crate) fn revision(&self) -> String {
        let running = self.running.as_deref().unwrap_or_default();
        match self.other() {
            None => running.to_owned(),
            Some(stored) => format!(
                " {}:{running}:{}",
                running.len(),
                stored.unwrap_or_default()
            ),
        }
    }

    /// Whether each place has what a revision says of it, or what is wanted.
    fn is_between(&self, revision: &str, wanted: &str) -> bool {
        let (running, stored) = expected(revision);
        let fits = |present: Option<&str>, expected: Option<&str>| {
            present == expected || present == Some(wanted)
        };
        fits(self.running.as_deref(), running)
            && self.stored().is_none_or(|present| fits(present, stored))
    }
}

/// What a revision says of the memory and of the file.
fn expected(revision: &str) -> (Option<&str>, Option<&str>) {
    let value = |text| Some(text).filter(|text: &&str| !text.is_empty());
    let both = || {
        let (length, values) = revision.strip_prefix(' ')?.split_once(':')?;
        let (running, stored) = values.split_at_checked(length.parse().ok()?)?;
        Some((running, stored.strip_prefix(':')?))
    };
    let (running, stored) = both().unwrap_or((revision, revision));
    (value(running), value(stored))
}

impl Map<'_> {
    /// Puts a value into both places. With a revision, each must hold what that says of it, or the wanted value.
    pub(crate) fn set(
        &self,
        revision: Option<&str>,
        wanted: &str,
        dry_run: bool,
    ) -> Result<Outcome, Failure> {
        let present = self.present()?;
        if present.is(Some(wanted)) {
            return Ok(Outcome::Unchanged);
        }
        if let Some(revision) = revision
            && !present.is_between(revision, wanted)
        {
            let expected = match expected(revision) {
                (running, stored) if running == stored => quoted(running),
                (running, stored) => {
                    format!("{} and {} in the file", quoted(running), quoted(stored))
                }
            };
            let message = format!(
                "{}, expected was {expected} or {}",
                self.told(&present),
                quoted(Some(wanted))
            );
            return Err(Failure::conflict("haproxy.map-changed", message)
                .hint("somebody else changed it: see who did, and plan anew"));
        }
        if dry_run {
            return Ok(Outcome::changed());
        }
        let before = self.store(wanted)?;
        if present.running.as_deref() != Some(wanted)
            && let Err(failure) = self.run(present.running.is_some(), wanted)
        {
            self.put_back(before, &failure);
            return Err(failure);
        }
        let after = self.present()?;
        if after.is(Some(wanted)) {
            Ok(Outcome::changed())
        } else {
            Err(
                Failure::conflict("haproxy.map-disagrees", self.told(&after))
                    .hint("somebody else changes it at the same time: see who does, and plan anew"),
            )
        }
    }

    /// Reads what the places hold.
    pub(crate) fn present(&self) -> Result<Present, Failure> {
        let Entry { file, key, .. } = self.entry;
        let command = format!("show map {file}");
        let answer = self.control.ask(&command)?;
        let stored = match &self.entry.directory {
            None => None,
            Some(directory) => {
                let text = self.text(directory)?;
                Some(text.lines().find_map(|line| value(line, key)))
            }
        };
        let mut running = None;
        for line in answer.lines().filter(|line| !line.trim().is_empty()) {
            // `ADDRESS KEY VALUE`
            let Some((_, line)) = line
                .split_once(' ')
                .filter(|(address, _)| address.starts_with("0x"))
            else {
                return Err(refused(&command, &answer));
            };
            // The first of several entries is the one that HAProxy finds.
            running = running.or_else(|| value(line, key));
        }
        Ok(Present { running, stored })
    }

    fn text(&self, directory: &str) -> Result<String, Failure> {
        let name = self.entry.file_name();
        self.files.read(directory, name)?.ok_or_else(|| {
            Failure::not_found(
                "haproxy.map-file",
                format!("there is no `{name}` in directory `{directory}`"),
            )
            .hint(format!(
                "grant the directory that holds `{}` under that name",
                self.entry.file
            ))
        })
    }

    /// Writes the value into the file and returns the text that was there.
    fn store(&self, wanted: &str) -> Result<Option<String>, Failure> {
        let Some(directory) = &self.entry.directory else {
            return Ok(None);
        };
        let before = self.text(directory)?;
        let after = with_value(&before, &self.entry.key, wanted);
        if after == before {
            return Ok(None);
        }
        self.files
            .write(directory, self.entry.file_name(), &after)?;
        Ok(Some(before))
    }

    fn run(&self, is_there: bool, wanted: &str) -> Result<(), Failure> {
        let verb = if is_there { "set" } else { "add" };
        let Entry { file, key, .. } = self.entry;
        order(self.control, &[format!("{verb} map {file} {key} {wanted}")])
    }

    /// Takes the write to the file back, unless HAProxy may have carried out its order after all.
    fn put_back(&self, before: Option<String>, failure: &Failure) {
        let (Some(directory), Some(before)) = (&self.entry.directory, before) else {
            return;
        };
        if failure.class == cutover_plugin_sdk::FailureClass::UnknownOutcome {
            return;
        }
        // The failure that led here is the one to tell; the next read finds the places apart if this fails too.
        if self
            .files
            .write(directory, self.entry.file_name(), &before)
            .is_ok()
        {
            info!("`{}` is as it was before", self.entry.file);
        }
    }

    /// Which place holds what.
    pub(crate) fn told(&self, present: &Present) -> String {
        let Entry { file, key, .. } = self.entry;
        let running = quoted(present.running.as_deref());
        match &present.stored {
            None => format!("`{key}` in map `{file}` is {running}"),
            Some(stored) => format!(
                "`{key}` in map `{file}` is {running} in HAProxy's memory and {} in the file",
                quoted(stored.as_deref())
            ),
        }
    }
}

fn quoted(value: Option<&str>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| format!("`{value}`"))
}

/// The value in a line of a map, if it is of this key.
fn value(line: &str, key: &str) -> Option<String> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (found, value) = line.split_once(char::is_whitespace)?;
    (found == key).then(|| value.trim().to_owned())
}

/// The text of a map with another value, everything else as it was.
fn with_value(text: &str, key: &str, wanted: &str) -> String {
    let mut is_there = false;
    let mut after = String::with_capacity(text.len() + wanted.len());
    for line in text.lines() {
        if value(line, key).is_some() {
            is_there = true;
            after.push_str(&format!("{key} {wanted}"));
        } else {
            after.push_str(line);
        }
        after.push('\n');
    }
    if !is_there {
        after.push_str(&format!("{key} {wanted}\n"));
    }
    after
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use cutover_plugin_sdk::FailureClass;

    use super::*;

    /// An HAProxy with one map, and its file. `refuses` is what it says to an order.
    struct Fake {
        running: RefCell<String>,
        stored: RefCell<String>,
        refuses: &'static str,
        log: RefCell<Vec<&'static str>>,
    }

    impl Control for Fake {
        fn ask(&self, command: &str) -> Result<String, Failure> {
            if command == "show map /etc/live.map" {
                let running = self.running.borrow();
                return Ok(running
                    .lines()
                    .map(|line| format!("0x55 {line}\n"))
                    .collect::<String>()
                    + "\n");
            }
            self.log.borrow_mut().push("memory");
            if self.refuses.is_empty() {
                let value = command.rsplit(' ').next().unwrap();
                let text = with_value(&self.running.borrow(), "live", value);
                *self.running.borrow_mut() = text;
            }
            Ok(self.refuses.to_owned())
        }
    }

    impl Files for Fake {
        fn read(&self, _directory: &str, file: &str) -> Result<Option<String>, Failure> {
            Ok((file == "live.map").then(|| self.stored.borrow().clone()))
        }

        fn write(&self, _directory: &str, _file: &str, text: &str) -> Result<(), Failure> {
            self.log.borrow_mut().push("file");
            *self.stored.borrow_mut() = text.to_owned();
            Ok(())
        }
    }

    fn fake(running: &str, stored: &str) -> Fake {
        Fake {
            running: RefCell::new(running.to_owned()),
            stored: RefCell::new(stored.to_owned()),
            refuses: "",
            log: RefCell::default(),
        }
    }

    fn with<T>(fake: &Fake, operation: impl FnOnce(&Map<'_>) -> T) -> T {
        let entry = Entry {
            file: "/etc/live.map".to_owned(),
            key: "live".to_owned(),
            directory: Some("maps".to_owned()),
        };
        operation(&Map {
            control: fake,
            files: fake,
            entry: &entry,
        })
    }

    #[test]
    fn the_file_is_written_before_the_memory_and_keeps_its_other_lines() {
        let fake = fake(
            "other x\nlive blue\n",
            "# who is live\nother x\nlive   blue \n",
        );

        let outcome = with(&fake, |map| map.set(Some("blue"), "green", false));

        assert_eq!(outcome, Ok(Outcome::changed()));
        assert_eq!(*fake.log.borrow(), ["file", "memory"]);
        assert_eq!(*fake.running.borrow(), "other x\nlive green\n");
        assert_eq!(
            *fake.stored.borrow(),
            "# who is live\nother x\nlive green\n"
        );
        assert_eq!(
            with(&fake, |map| map.set(Some("blue"), "green", false)),
            Ok(Outcome::Unchanged)
        );
    }

    #[test]
    fn an_entry_that_is_not_there_is_added() {
        let fake = fake("", "");

        assert_eq!(with(&fake, |map| map.present()).unwrap().revision(), "");
        with(&fake, |map| map.set(Some(""), "blue", false)).unwrap();

        assert_eq!(with(&fake, |map| map.present()).unwrap().revision(), "blue");
    }

    #[test]
    fn places_that_disagree_are_told_both_with_a_revision_of_both() {
        let fake = fake("live green\n", "live blue\n");

        let present = with(&fake, |map| map.present()).unwrap();

        assert_eq!(present.running.as_deref(), Some("green"));
        assert_eq!(present.other(), Some(Some("blue")));
        assert_eq!(present.revision(), " 5:green:blue");
        assert_eq!(
            with(&fake, |map| map.told(&present)),
            "`live` in map `/etc/live.map` is `green` in HAProxy's memory and `blue` in the file"
        );
    }

    #[test]
    fn the_revision_of_places_that_disagree_guards_both() {
        for (running, stored, is_taken) in [
            ("live blue\n", "live green\n", true),
            ("live green\n", "live green\n", true),
            ("live blue\n", "live blue\n", false),
            ("live red\n", "live green\n", false),
            ("live blue\n", "live red\n", false),
            ("", "live green\n", false),
        ] {
            let fake = fake(running, stored);

            let outcome = with(&fake, |map| map.set(Some(" 4:blue:green"), "green", false));

            match outcome {
                Ok(_) => assert!(is_taken, "{running}{stored}"),
                Err(failure) => {
                    assert!(!is_taken, "{failure:?}");
                    assert_eq!(failure.class, FailureClass::Conflict);
                    assert!(
                        failure
                            .message
                            .ends_with(", expected was `blue` and `green` in the file or `green`"),
                        "{failure:?}"
                    );
                    assert!(fake.log.borrow().is_empty());
                }
            }
        }
    }

    #[test]
    fn a_revision_says_of_each_place_what_was_read() {
        for (running, stored) in [
            ("live blue\n", "live green\n"),
            ("live b:lue x\n", "live :\n"),
            ("", "live green\n"),
            ("live blue\n", ""),
            ("live blue\n", "live blue\n"),
            ("", ""),
        ] {
            let present = with(&fake(running, stored), |map| map.present()).unwrap();
            let revision = present.revision();

            let expected = expected(&revision);

            assert_eq!(Some(expected.1), present.stored(), "{revision}");
            assert_eq!(expected.0, present.running.as_deref(), "{revision}");
        }
    }

    #[test]
    fn a_change_that_broke_off_between_the_places_is_finished() {
        for (running, stored) in [
            ("live blue\n", "live green\n"),
            ("live green\n", "live blue\n"),
        ] {
            let fake = fake(running, stored);

            let outcome = with(&fake, |map| map.set(Some("blue"), "green", false));

            assert_eq!(outcome, Ok(Outcome::changed()));
            assert_eq!(
                with(&fake, |map| map.present()).unwrap().revision(),
                "green"
            );
        }
    }

    #[test]
    fn a_value_that_nobody_expected_is_a_conflict_and_stays() {
        let fake = fake("live maintenance\n", "live maintenance\n");

        let failure = with(&fake, |map| map.set(Some("blue"), "green", false)).unwrap_err();

        assert_eq!(failure.class, FailureClass::Conflict);
        assert!(
            failure.message.contains("`maintenance` in the file"),
            "{failure:?}"
        );
        assert!(fake.log.borrow().is_empty());
        assert_eq!(
            with(&fake, |map| map.set(None, "green", false)),
            Ok(Outcome::changed())
        );
    }

    #[test]
    fn a_refusal_puts_the_file_back() {
        let fake = Fake {
            refuses: "Permission denied\n",
            ..fake("live blue\n", "live blue # it is\n")
        };

        let failure = with(&fake, |map| map.set(None, "green", false)).unwrap_err();

        assert_eq!(failure.class, FailureClass::Denied);
        assert_eq!(*fake.stored.borrow(), "live blue # it is\n");
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let fake = fake("live blue\n", "live blue\n");

        let outcome = with(&fake, |map| map.set(None, "green", true));

        assert_eq!(outcome, Ok(Outcome::changed()));
        assert!(fake.log.borrow().is_empty());
    }
}

//! Changing nginx: files, the test of the configuration, the reload, and the proof that the change is live.
//!
//! Every change raises the version, a number in an include file that nginx serves at a location. The change is live when
//! nothing answers an older one. Files are put back when nginx refuses them.

use std::time::Duration;

use cutover_plugin_sdk::{Failure, Outcome, Pending};

use crate::config::Config;

/// Between two looks at nginx.
const POLL_STEP: Duration = Duration::from_millis(50);

/// How many answers in a row tell which version is live. While a reload begins, workers of both accept connections.
const LOOKS: usize = 3;

/// What nginx lives in.
pub(crate) trait World {
    /// Reads an include file.
    fn read(&self, file: &str) -> Result<Option<String>, Failure>;
    fn write(&self, file: &str, text: &str) -> Result<(), Failure>;
    fn run(&self, program: &str, arguments: &[String]) -> Result<Ran, Failure>;
    /// The body that the status location answers with.
    fn status(&self) -> Result<String, Failure>;
}

/// What a program said and how it ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// One file and what shall be in it.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) file: String,
    pub(crate) before: String,
    pub(crate) after: String,
}

/// When a change is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Requests that begin follow it.
    Live,
    /// Requests that began before are over, too, as far as nginx tells.
    Drained,
}

/// What nginx says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) version: u64,
    worker: Option<u32>,
}

pub(crate) struct Nginx<'a> {
    pub(crate) world: &'a dyn World,
    pub(crate) config: &'a Config,
}

impl Nginx<'_> {
    /// Reads an include file that must be there.
    pub(crate) fn file(&self, file: &str, beginning: &str) -> Result<String, Failure> {
        self.world.read(file)?.ok_or_else(|| {
            let directory = &self.config.directory;
            Failure::not_found(
                "nginx.file",
                format!("there is no `{file}` in directory `{directory}`"),
            )
            .hint(format!(
                "include it in nginx's configuration, and begin with: {beginning}"
            ))
        })
    }

    /// The version of the files.
    pub(crate) fn version(&self) -> Result<u64, Failure> {
        let file = self.config.version_file();
        let text = self.file(&file, &self.version_text(0))?;
        let number = text.split('"').nth(3).and_then(|text| text.parse().ok());
        number.ok_or_else(|| {
            Failure::permanent(
                "nginx.version",
                format!("`{file}` does not have the form: {}", self.version_text(0)),
            )
        })
    }

    fn version_text(&self, version: u64) -> String {
        format!(
            "map \"\" ${}_version {{ default \"{version}\"; }}",
            self.config.name
        )
    }

    /// The oldest version that nginx answers.
    pub(crate) fn live(&self) -> Result<Live, Failure> {
        let mut oldest = self.look()?;
        for _ in 1..LOOKS {
            let look = self.look()?;
            if look.version < oldest.version {
                oldest = look;
            }
        }
        Ok(oldest)
    }

    fn look(&self) -> Result<Live, Failure> {
        let body = self.world.status()?;
        let mut words = body.split_whitespace();
        let version = words.next().and_then(|word| word.parse().ok());
        let version =
            version.ok_or_else(|| {
                let beginning: String = body.chars().take(80).collect();
                Failure::permanent(
                "nginx.status",
                format!("`{}` answered no version, but: {beginning}", self.config.status.path),
            )
            .hint(format!(
                "add to the server at {}: location = {} {{ return 200 \"${}_version $pid\\n\"; }}",
                self.config.status.address, self.config.status.path, self.config.name
            ))
            })?;
        Ok(Live {
            version,
            worker: words.next().and_then(|word| word.parse().ok()),
        })
    }

    /// Workers of earlier configurations that finish their requests. None are told of without `ps`.
    pub(crate) fn old_workers(&self, live: Live) -> Result<usize, Failure> {
        let (Some(ps), Some(worker)) = (&self.config.ps, live.worker) else {
            return Ok(0);
        };
        let run = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
            self.world.run(ps, &arguments)
        };
        let parent = run(&["-o", "ppid=", "-p", &worker.to_string()])?.stdout;
        let parent = parent.trim();
        if parent.is_empty() {
            // That worker is gone: a reload is under way.
            return Ok(1);
        }
        let workers = run(&["--ppid", parent, "-o", "args="])?.stdout;
        Ok(workers
            .lines()
            .filter(|line| line.contains("is shutting down"))
            .count())
    }

    /// Lets nginx test the configuration as the files are.
    pub(crate) fn test(&self) -> Result<(), Failure> {
        let ran = self
            .world
            .run(&self.config.program, &self.config.arguments(&["-t", "-q"]))?;
        if ran.code == 0 {
            return Ok(());
        }
        Err(Failure::invalid(
            "nginx.configuration",
            format!("nginx refuses the configuration: {}", words(&ran.stderr)),
        ))
    }

    fn reload(&self) -> Result<(), Failure> {
        let ran = self.world.run(
            &self.config.program,
            &self.config.arguments(&["-s", "reload"]),
        )?;
        if ran.code == 0 {
            return Ok(());
        }
        Err(Failure::permanent(
            "nginx.reload",
            format!("nginx cannot be reloaded: {}", words(&ran.stderr)),
        )
        .hint(
            "see that it runs, and that `prefix` and `config` are those that it was started with",
        ))
    }

    /// Writes what differs, tests it and reloads: one reload for all changes. What was there stays beside, as
    /// `FILE.before`, and is put back when nginx refuses.
    pub(crate) fn apply(
        &self,
        changes: &[Change],
        until: Until,
        dry_run: bool,
    ) -> Result<Outcome, Failure> {
        let mut changes: Vec<&Change> = changes
            .iter()
            .filter(|change| change.before != change.after)
            .collect();
        let version = self.version()?;
        if changes.is_empty() {
            let live = self.live()?;
            // A call that broke off may have left files that nginx has not read.
            if live.version >= version {
                return Ok(match self.finish(version, until)? {
                    Outcome::Pending(pending) => Outcome::Pending(pending),
                    _ => Outcome::Unchanged,
                });
            }
            if dry_run {
                return Ok(Outcome::changed());
            }
            self.test()?;
            self.reload()?;
            return self.finish(version, until);
        }
        if dry_run {
            return Ok(Outcome::changed());
        }
        let next = Change {
            file: self.config.version_file(),
            before: self.version_text(version) + "\n",
            after: self.version_text(version + 1) + "\n",
        };
        // First, so that at no moment a file that nginx has not read looks as if it had; and back last, for the same reason.
        changes.insert(0, &next);
        let changed = self
            .write(&changes)
            .and_then(|()| self.test())
            .and_then(|()| self.reload());
        if let Err(mut failure) = changed {
            let back = changes
                .iter()
                .rev()
                .try_for_each(|change| self.world.write(&change.file, &change.before));
            failure.hint = Some(match (back, failure.hint) {
                (Ok(()), None) => "the files are as they were before".to_owned(),
                (Ok(()), Some(hint)) => format!("{hint}; the files are as they were before"),
                (Err(error), _) => format!(
                    "the files could not be put back ({}): they are beside, as `….before`",
                    error.message
                ),
            });
            return Err(failure);
        }
        self.finish(version + 1, until)
    }

    fn write(&self, changes: &[&Change]) -> Result<(), Failure> {
        for change in changes {
            self.world
                .write(&format!("{}.before", change.file), &change.before)?;
        }
        changes
            .iter()
            .try_for_each(|change| self.world.write(&change.file, &change.after))
    }

    /// Whether a version is live, and its predecessors gone where that was asked for.
    pub(crate) fn finish(&self, version: u64, until: Until) -> Result<Outcome, Failure> {
        let live = self.live()?;
        let pending = |message: String| {
            let token = format!(
                "{version} {}",
                match until {
                    Until::Live => "live",
                    Until::Drained => "drained",
                }
            );
            Ok(Outcome::Pending(Pending::new(token, POLL_STEP, message)))
        };
        if live.version < version {
            let at = live.version;
            return pending(format!("nginx has version {at}, not yet {version}"));
        }
        if until == Until::Drained {
            match self.old_workers(live)? {
                0 => {}
                1 => return pending("1 old worker finishes its requests".to_owned()),
                many => return pending(format!("{many} old workers finish their requests")),
            }
        }
        Ok(Outcome::changed())
    }

    /// Goes on with what left a token.
    pub(crate) fn poll(&self, token: &str) -> Result<Outcome, Failure> {
        let known = token.split_once(' ').and_then(|(version, until)| {
            let until = match until {
                "live" => Until::Live,
                "drained" => Until::Drained,
                _ => return None,
            };
            Some((version.parse().ok()?, until))
        });
        let (version, until) = known.ok_or_else(|| {
            Failure::invalid(
                "nginx.token",
                format!("`{token}` is no token of this plugin"),
            )
        })?;
        self.finish(version, until)
    }
}

/// nginx's own words: the first line, without the time and the process.
fn words(stderr: &str) -> String {
    let line = stderr
        .lines()
        .find(|line| line.contains("[emerg]") || line.contains("[error]"))
        .or_else(|| stderr.lines().next())
        .unwrap_or("it said nothing");
    let at = line.find('[').unwrap_or(0);
    line[at..].chars().take(500).collect()
}

#[cfg(test)]
pub(crate) mod fake {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use super::*;

    /// An nginx that reloads `lag` looks after it was told to.
    #[derive(Default)]
    pub(crate) struct Fake {
        pub(crate) files: RefCell<BTreeMap<String, String>>,
        /// What was written, in order, without what is kept beside.
        pub(crate) written: RefCell<Vec<String>>,
        /// What `-t` says when a file holds it.
        pub(crate) refuses: &'static str,
        pub(crate) lag: Cell<u32>,
        pub(crate) live: Cell<u64>,
        pub(crate) shutting_down: Cell<usize>,
        pub(crate) reloads: Cell<u32>,
    }

    impl Fake {
        pub(crate) fn with(files: &[(&str, &str)]) -> Self {
            let fake = Self::default();
            for (file, text) in files {
                fake.set(file, text);
            }
            fake.set(
                "shop.version.conf",
                "map \"\" $shop_version { default \"0\"; }\n",
            );
            fake
        }

        pub(crate) fn set(&self, file: &str, text: &str) {
            self.files
                .borrow_mut()
                .insert(file.to_owned(), text.to_owned());
        }

        pub(crate) fn text(&self, file: &str) -> String {
            self.files.borrow()[file].clone()
        }

        fn stored(&self) -> u64 {
            let text = self.text("shop.version.conf");
            text.split('"').nth(3).unwrap().parse().unwrap()
        }
    }

    impl World for Fake {
        fn read(&self, file: &str) -> Result<Option<String>, Failure> {
            Ok(self.files.borrow().get(file).cloned())
        }

        fn write(&self, file: &str, text: &str) -> Result<(), Failure> {
            self.set(file, text);
            if !file.ends_with(".before") {
                self.written.borrow_mut().push(file.to_owned());
            }
            Ok(())
        }

        fn run(&self, _program: &str, arguments: &[String]) -> Result<Ran, Failure> {
            let files = self.files.borrow();
            let mut current = files.iter().filter(|(file, _)| !file.ends_with(".before"));
            let is_bad =
                !self.refuses.is_empty() && current.any(|(_, text)| text.contains(self.refuses));
            match arguments[0].as_str() {
                "-t" if is_bad => Ok(Ran {
                    code: 1,
                    stderr: "2026/11/21 17:37:03 [emerg] 9#9: unknown directive\n".to_owned(),
                    ..Ran::default()
                }),
                "-s" => {
                    drop(files);
                    self.reloads.set(self.reloads.get() + 1);
                    if self.lag.get() == 0 {
                        self.live.set(self.stored());
                    }
                    Ok(Ran::default())
                }
                "-o" => Ok(Ran {
                    stdout: " 42\n".to_owned(),
                    ..Ran::default()
                }),
                "--ppid" => Ok(Ran {
                    stdout: "nginx: worker process\n".to_owned()
                        + &"nginx: worker process is shutting down\n"
                            .repeat(self.shutting_down.get()),
                    ..Ran::default()
                }),
                _ => Ok(Ran::default()),
            }
        }

        fn status(&self) -> Result<String, Failure> {
            if self.lag.get() > 0 {
                self.lag.set(self.lag.get() - 1);
                if self.lag.get() == 0 {
                    self.live.set(self.stored());
                }
            }
            Ok(format!("{} 7\n", self.live.get()))
        }
    }

    pub(crate) const CONFIG: &str = r#"{"directory": "nginx", "name": "shop", "upstream": "shop", "ps": "ps",
        "status": {"address": "tcp:127.0.0.1:8089", "path": "/cutover"}}"#;

    pub(crate) fn config() -> Config {
        cutover_plugin_sdk::parse_config(CONFIG).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::FailureClass;

    use super::fake::{Fake, config};
    use super::*;

    fn change(before: &str, after: &str) -> Change {
        Change {
            file: "shop.servers".to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
        }
    }

    fn with<T>(fake: &Fake, operation: impl FnOnce(&Nginx<'_>) -> T) -> T {
        let config = config();
        operation(&Nginx {
            world: fake,
            config: &config,
        })
    }

    #[test]
    fn a_change_is_written_tested_and_live_and_the_old_file_is_kept() {
        let fake = Fake::with(&[("shop.servers", "old")]);

        let outcome = with(&fake, |nginx| {
            nginx.apply(&[change("old", "new")], Until::Live, false)
        });

        assert_eq!(outcome, Ok(Outcome::changed()));
        assert_eq!(
            (fake.text("shop.servers"), fake.text("shop.servers.before")),
            ("new".to_owned(), "old".to_owned())
        );
        assert_eq!((fake.live.get(), fake.reloads.get()), (1, 1));
        assert_eq!(
            *fake.written.borrow(),
            ["shop.version.conf", "shop.servers"],
            "killed in between, it does not look as if nginx had read the change"
        );
    }

    #[test]
    fn a_change_that_is_not_live_yet_is_pending() {
        let fake = Fake::with(&[("shop.servers", "old")]);
        fake.lag.set(5);

        let outcome = with(&fake, |nginx| {
            nginx.apply(&[change("old", "new")], Until::Live, false)
        });

        let Ok(Outcome::Pending(pending)) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(pending.message, "nginx has version 0, not yet 1");
        let done = with(&fake, |nginx| {
            nginx.poll(&pending.token)?;
            nginx.poll(&pending.token)
        });
        assert_eq!(done, Ok(Outcome::changed()));
    }

    #[test]
    fn what_nginx_refuses_is_put_back_and_told_in_its_words() {
        let fake = Fake {
            refuses: "bogus",
            ..Fake::with(&[("shop.servers", "old")])
        };

        let failure = with(&fake, |nginx| {
            nginx.apply(&[change("old", "bogus")], Until::Live, false)
        })
        .unwrap_err();

        assert_eq!(failure.class, FailureClass::Invalid);
        assert_eq!(
            failure.message,
            "nginx refuses the configuration: [emerg] 9#9: unknown directive"
        );
        assert_eq!(
            failure.hint.as_deref(),
            Some("the files are as they were before")
        );
        assert_eq!(fake.text("shop.servers"), "old");
        assert!(fake.text("shop.version.conf").contains("\"0\""));
        assert_eq!(
            fake.written.borrow()[2..],
            ["shop.servers", "shop.version.conf"]
        );
        assert_eq!(fake.reloads.get(), 0);
    }

    #[test]
    fn files_that_nginx_has_not_read_are_reloaded_though_nothing_differs() {
        let fake = Fake::with(&[]);
        fake.set(
            "shop.version.conf",
            "map \"\" $shop_version { default \"4\"; }\n",
        );

        let outcome = with(&fake, |nginx| {
            nginx.apply(&[change("same", "same")], Until::Live, false)
        });
        let again = with(&fake, |nginx| {
            nginx.apply(&[change("same", "same")], Until::Live, false)
        });

        assert_eq!(outcome, Ok(Outcome::changed()));
        assert_eq!(again, Ok(Outcome::Unchanged));
        assert_eq!((fake.live.get(), fake.reloads.get()), (4, 1));
    }

    #[test]
    fn drained_means_that_the_old_workers_have_ended() {
        let fake = Fake::with(&[("shop.servers", "old")]);
        fake.shutting_down.set(2);

        let outcome = with(&fake, |nginx| {
            nginx.apply(&[change("old", "new")], Until::Drained, false)
        });

        let Ok(Outcome::Pending(pending)) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(pending.message, "2 old workers finish their requests");
        fake.shutting_down.set(0);
        assert_eq!(
            with(&fake, |nginx| nginx.poll(&pending.token)),
            Ok(Outcome::changed())
        );
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let fake = Fake::with(&[("shop.servers", "old")]);

        let outcome = with(&fake, |nginx| {
            nginx.apply(&[change("old", "new")], Until::Live, true)
        });

        assert_eq!(outcome, Ok(Outcome::changed()));
        assert_eq!(fake.text("shop.servers"), "old");
        assert_eq!(fake.reloads.get(), 0);
    }
}

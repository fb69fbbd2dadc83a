//! Gates: whether a deployment goes on at the boundary between two batches.

use std::borrow::Cow;

use serde_json::Value;

use crate::bindings::gate::exports::cutover::gate::evaluation;
use crate::{Failure, OpContext, Plugin, panic_message};

pub use evaluation::{Evidence, Input as GateInput, Target as GateTarget, Verdict};

/// Says whether a deployment goes on.
///
/// A gate looks and answers; it changes nothing, so that the host may ask again at any time. That something could not be
/// asked at all is a failure, whose class tells the host whether to try again. What the answer says is a verdict.
///
/// ```
/// use cutover_plugin_sdk::{Evidence, Failure, Gate, GateInput, OpContext, Plugin, Verdict, export};
///
/// /// Lets at most half of the batches pass before ten in the morning.
/// struct Morning;
///
/// impl Plugin for Morning {
///     type Config = serde_json::Value;
/// }
///
/// impl Gate for Morning {
///     fn evaluate(_ctx: &OpContext, input: &GateInput) -> Result<Verdict, Failure> {
///         let hour = input.since / 3_600_000 % 24;
///         let is_early = input.batch * 2 <= input.of_batches;
///         let evidence = Evidence::new("hour", hour, is_early || hour >= 10).against("at least 10");
///         Ok(Verdict::of(vec![evidence]))
///     }
/// }
///
/// export!(Morning: Gate);
/// ```
pub trait Gate: Plugin {
    /// Looks once. Before a release it is called with `ctx.dry_run`, with all instances and no version of theirs: the verdict
    /// counts for nothing then, a failure is told of. It should look at once, whatever it waits for otherwise.
    ///
    /// # Errors
    /// When it cannot be found out, which is no verdict.
    fn evaluate(ctx: &OpContext, input: &GateInput) -> Result<Verdict, Failure>;

    /// Goes on with an evaluation that returned `pending`, in another instance of the component. `input` is the same.
    ///
    /// # Errors
    /// `unsupported` unless a plugin that returns `pending` writes its own.
    fn poll(_ctx: &OpContext, _input: &GateInput, _token: &str) -> Result<Verdict, Failure> {
        Err(Failure::unsupported(
            "plugin.poll",
            "the plugin never leaves an evaluation pending",
        ))
    }
}

impl Evidence {
    /// Makes a piece of evidence: what was looked at, what was found, and whether that is good.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl ToString, passed: bool) -> Self {
        Self {
            name: name.into(),
            value: value.to_string(),
            threshold: None,
            passed,
        }
    }

    /// Adds what the value was held against, in words.
    #[must_use]
    pub fn against(mut self, threshold: impl Into<String>) -> Self {
        self.threshold = Some(threshold.into());
        self
    }
}

impl Verdict {
    /// Passes when all evidence does.
    ///
    /// ```
    /// use cutover_plugin_sdk::{Evidence, Verdict};
    ///
    /// let status = |code: u16| Evidence::new("GET /health", code, code == 200).against("200");
    ///
    /// assert!(matches!(Verdict::of(vec![status(200), status(200)]), Verdict::Pass(_)));
    /// assert!(matches!(Verdict::of(vec![status(200), status(503)]), Verdict::Fail(_)));
    /// ```
    #[must_use]
    pub fn of(evidence: Vec<Evidence>) -> Self {
        if evidence.iter().all(|evidence| evidence.passed) {
            Self::Pass(evidence)
        } else {
            Self::Fail(evidence)
        }
    }
}

impl GateInput {
    /// Puts what is known of the deployment into a text: `{{group}}`, `{{application}}`, `{{group-name}}` (the part
    /// behind the slash), `{{release-id}}`, `{{deployment-id}}`, `{{version}}`, `{{batch}}`, `{{of-batches}}`,
    /// `{{since}}` (seconds since 1970), `{{parameters.NAME}}`. `{{secret:NAME}}` stays, for the host to fill in.
    /// `escape` makes a value fit the language of the text.
    ///
    /// # Errors
    /// `invalid` for a placeholder that is not known, or a parameter that is not there or is no text, number or boolean.
    ///
    /// ```
    /// use cutover_plugin_sdk::{Failure, GateInput};
    ///
    /// let input = GateInput {
    ///     group: "shop/web".to_owned(),
    ///     release_id: "r".to_owned(),
    ///     deployment_id: "r-1".to_owned(),
    ///     version: "1.2.0".to_owned(),
    ///     batch: 1,
    ///     of_batches: 4,
    ///     targets: Vec::new(),
    ///     since: 0,
    ///     parameters: r#"{"zone": "a"}"#.to_owned(),
    /// };
    ///
    /// let query = input.fill("errors{version=\"{{version}}\",zone=\"{{parameters.zone}}\"}", str::to_owned)?;
    ///
    /// assert_eq!(query, "errors{version=\"1.2.0\",zone=\"a\"}");
    /// assert!(input.fill("{{color}}", str::to_owned).is_err());
    /// # Ok::<(), Failure>(())
    /// ```
    pub fn fill(&self, text: &str, escape: impl Fn(&str) -> String) -> Result<String, Failure> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            filled.push_str(before);
            let Some((name, behind)) = after.split_once("}}") else {
                let message = format!("`{{{{{after}` has no end: write `{{{{NAME}}}}`");
                return Err(Failure::invalid("gate.placeholder", message));
            };
            if name.starts_with("secret:") {
                filled.push_str("{{");
                filled.push_str(name);
                filled.push_str("}}");
            } else {
                filled.push_str(&escape(&self.value(name.trim())?));
            }
            rest = behind;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, name: &str) -> Result<Cow<'_, str>, Failure> {
        let (application, group_name) = self.group.split_once('/').unwrap_or((&self.group, ""));
        Ok(match name {
            "group" => Cow::Borrowed(self.group.as_str()),
            "application" => application.into(),
            "group-name" => group_name.into(),
            "release-id" => self.release_id.as_str().into(),
            "deployment-id" => self.deployment_id.as_str().into(),
            "version" => self.version.as_str().into(),
            "batch" => self.batch.to_string().into(),
            "of-batches" => self.of_batches.to_string().into(),
            "since" => (self.since / 1000).to_string().into(),
            _ => match name.strip_prefix("parameters.") {
                Some(parameter) => self.parameter(parameter)?.into(),
                None => {
                    let message = format!(
                        "`{{{{{name}}}}}` is not known; there are group, application, group-name, release-id, \
                         deployment-id, version, batch, of-batches, since, parameters.NAME"
                    );
                    return Err(Failure::invalid("gate.placeholder", message));
                }
            },
        })
    }

    fn parameter(&self, name: &str) -> Result<String, Failure> {
        let invalid = |message: String| Failure::invalid("gate.parameters", message);
        let parameters: Value = serde_json::from_str(&self.parameters)
            .map_err(|error| invalid(format!("the gate's parameters are no JSON: {error}")))?;
        match parameters.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            Some(_) => Err(invalid(format!(
                "parameter `{name}` of the gate is no text, number or boolean"
            ))),
            None => Err(invalid(format!("the gate has no parameter `{name}`"))),
        }
    }
}

impl<T: Gate> evaluation::Guest for T {
    fn evaluate(ctx: OpContext, input: GateInput) -> Result<Verdict, Failure> {
        panic_message::send_to_host();
        <T as Gate>::evaluate(&ctx, &input)
    }

    fn poll(ctx: OpContext, input: GateInput, token: String) -> Result<Verdict, Failure> {
        panic_message::send_to_host();
        <T as Gate>::poll(&ctx, &input, &token)
    }
}

//! What a Prometheus server answers to an instant query.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// The whole answer of `/api/v1/query`. What else is in it is for others.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    status: Status,
    data: Option<Data>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Success,
    Error,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Sample>),
    Scalar(Point),
    #[allow(dead_code, reason = "that it is one is all that counts")]
    Matrix(IgnoredAny),
    #[allow(dead_code, reason = "that it is one is all that counts")]
    String(IgnoredAny),
}

#[derive(Debug, Deserialize)]
struct Sample {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    /// Native histograms come without one.
    value: Option<Point>,
}

/// A time and a number, which is a text because JSON has no `NaN`.
#[derive(Debug, Deserialize)]
struct Point(#[allow(dead_code, reason = "nobody asks when")] f64, String);

/// A number and what it is of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: String,
    pub(crate) value: f64,
    /// As the server wrote it.
    pub(crate) text: String,
}

/// Why there are no numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The query can never be answered as it is.
    Query(String),
    /// This time there was no answer.
    Failed(String),
}

impl Answer {
    /// The numbers, in the order of the answer.
    pub(crate) fn series(self) -> Result<Vec<Series>, Problem> {
        if self.status == Status::Error {
            let Self {
                error_type, error, ..
            } = self;
            return Err(match error_type.as_str() {
                "bad_data" => Problem::Query(error),
                _ => Problem::Failed(format!("{error_type}: {error}")),
            });
        }
        match self.data {
            Some(Data::Vector(samples)) => samples.into_iter().map(Sample::series).collect(),
            Some(Data::Scalar(point)) => Ok(vec![point.series(String::new())?]),
            Some(Data::Matrix(_)) => Err(Problem::Query(
                "its result is a range of values: put a function like `rate` around it".to_owned(),
            )),
            Some(Data::String(_)) => Err(Problem::Query("its result is a text".to_owned())),
            None => Err(Problem::Failed("the answer holds no data".to_owned())),
        }
    }
}

impl Sample {
    fn series(self) -> Result<Series, Problem> {
        let labels: Vec<String> = self
            .metric
            .iter()
            .filter(|(name, _)| *name != "__name__")
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        let name = self.metric.get("__name__").map_or("", String::as_str);
        let labels = if labels.is_empty() {
            name.to_owned()
        } else {
            format!("{name}{{{}}}", labels.join(", "))
        };
        match self.value {
            Some(point) => point.series(labels),
            None => Err(Problem::Query(format!(
                "its result `{labels}` is a histogram: take a quantile of it"
            ))),
        }
    }
}

impl Point {
    fn series(self, labels: String) -> Result<Series, Problem> {
        let Self(_, text) = self;
        match text.parse() {
            Ok(value) => Ok(Series {
                labels,
                value,
                text,
            }),
            Err(_) => Err(Problem::Failed(format!(
                "the answer has the value `{text}`"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(json: &str) -> Result<Vec<(String, f64)>, Problem> {
        let answer: Answer = serde_json::from_str(json).unwrap();
        let series = answer.series()?;
        Ok(series.into_iter().map(|s| (s.labels, s.value)).collect())
    }

    #[test]
    fn vectors_and_scalars_are_numbers() {
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"up","job":"shop","instance":"a:80"},"value":[1700000000.1,"1"]},
            {"metric":{},"value":[1700000000.1,"+Inf"]}]},"infos":["x"]}"#;
        let scalar =
            r#"{"status":"success","data":{"resultType":"scalar","result":[1700000000,"0.5"]}}"#;

        assert_eq!(
            series(vector).unwrap(),
            [
                (r#"up{instance="a:80", job="shop"}"#.to_owned(), 1.0),
                (String::new(), f64::INFINITY)
            ]
        );
        assert_eq!(series(scalar).unwrap(), [(String::new(), 0.5)]);
    }

    #[test]
    fn no_number_is_no_error() {
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{},"value":[1,"NaN"]}]}}"#;

        assert!(series(vector).unwrap()[0].1.is_nan());
    }

    #[test]
    fn a_query_that_cannot_be_answered_is_told_from_a_server_that_does_not() {
        for (json, problem) in [
            (
                r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#,
                Problem::Query("parse error".to_owned()),
            ),
            (
                r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#,
                Problem::Failed("timeout: query timed out".to_owned()),
            ),
            (
                r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
                Problem::Query(
                    "its result is a range of values: put a function like `rate` around it"
                        .to_owned(),
                ),
            ),
            (
                r#"{"status":"success"}"#,
                Problem::Failed("the answer holds no data".to_owned()),
            ),
            (
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,"one"]}}"#,
                Problem::Failed("the answer has the value `one`".to_owned()),
            ),
        ] {
            assert_eq!(series(json).unwrap_err(), problem);
        }
    }
}

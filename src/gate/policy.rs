//! What a policy file may say, and how it is read: YAML, checked against what rules can mean, with everything that it extends.
//!
//! It must not know a comparison.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metric::{Metric, Source};
use crate::error::{Error, Result};

/// Policies that the program brings along: name and text.
pub const PRESETS: &[(&str, &str)] = &[
    ("strict", include_str!("presets/strict.yaml")),
    ("release", include_str!("presets/release.yaml")),
    ("smoke", include_str!("presets/smoke.yaml")),
];
/// A policy to start from, with comments.
pub const STARTER: &str = include_str!("presets/starter.yaml");
/// One-sided confidence of every bound, unless a policy says otherwise.
pub const CONFIDENCE: f64 = 0.95;
/// Policies that extend each other, at most.
const MOST_EXTENDED: usize = 8;
/// Longest policy file, bytes.
const MOST_BYTES: u64 = 1 << 20;
/// Rules of one policy, with all that it extends, at most.
const MOST_RULES: usize = 1000;

/// A policy: what a cousin must keep to be released.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Version of this format: 1.
    pub version: u32,
    /// A name for reports; the file's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Policies whose rules it takes over: `strict`, `release`, `smoke`, or paths relative to this file. A rule of the same
    /// name replaces theirs; `enabled: false` takes it out.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub extends: OneOrMany,
    /// One-sided confidence of every bound, above 0.5 and at most 0.999; 0.95 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// What must have been measured; what is missing cannot pass.
    #[serde(default)]
    pub require: Requirements,
    /// What must hold against base.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What must hold against the same cousin of an earlier run (`--against`); not looked at without one.
    #[serde(default)]
    pub regressions: Vec<Rule>,
}

/// What must have been measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// Patterns of which each must match a task.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub tasks: OneOrMany,
    /// Patterns of which each must match a cousin's label.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub cousins: OneOrMany,
    /// Name of the protocol by which text was cut: `strided`, `llama.cpp`, `lm-eval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Suites, by name, with the SHA-256 that they must have.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub suites: std::collections::BTreeMap<String, String>,
    /// Whether an earlier run must be given (`--against`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<bool>,
}

/// One rule: a metric, where, and how much of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name, unique in its list.
    pub name: String,
    /// Why it is there; shown where it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What is measured; may be left out where `enabled: false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// Another metric of questions than each task's headline, as `acc_norm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// Over what it is taken; every one must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Per>,
    /// Patterns of task names, as `multilingual/*`; `!` excludes.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub tasks: OneOrMany,
    /// Patterns of language tags.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub languages: OneOrMany,
    /// Patterns of cousins' labels.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub cousins: OneOrMany,
    /// The loss, oriented so that more is worse, must be shown to be below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// The metric must be shown to be at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The metric must be shown to be at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Mean KL divergence must be shown to be at most so many times that of base rounded to bf16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_noise_floors: Option<f64>,
    /// Samples (questions, tokens) below which nothing is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_samples: Option<u64>,
    /// One-sided confidence of this rule's bounds, instead of the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// `false` takes a rule of the same name out.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_yes(yes: &bool) -> bool {
    *yes
}

/// Over what a rule's metric is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// All together.
    Overall,
    /// Each task.
    Task,
    /// Each group of tasks.
    Group,
    /// Each language: the worst one must hold too.
    Language,
    /// Each level of difficulty of each task.
    Level,
}

/// One string or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Strings", into = "Vec<String>")]
#[schemars(with = "Strings")]
pub struct OneOrMany(pub Vec<String>);

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Strings {
    One(String),
    Many(Vec<String>),
}

impl From<Strings> for OneOrMany {
    fn from(strings: Strings) -> Self {
        match strings {
            Strings::One(one) => Self(vec![one]),
            Strings::Many(many) => Self(many),
        }
    }
}

impl From<OneOrMany> for Vec<String> {
    fn from(strings: OneOrMany) -> Self {
        strings.0
    }
}

impl OneOrMany {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Limit {
    /// The loss must be below.
    Margin(f64),
    /// The metric must be at most this.
    Max(f64),
    /// The metric must be at least this.
    Min(f64),
    /// The metric must be at most so many times the noise floor's.
    MaxNoiseFloors(f64),
}

impl Rule {
    /// What the figure is held against; `None` unless exactly one is given.
    pub fn limit(&self) -> Option<Limit> {
        let given = [
            self.margin.map(Limit::Margin),
            self.max.map(Limit::Max),
            self.min.map(Limit::Min),
            self.max_noise_floors.map(Limit::MaxNoiseFloors),
        ];
        let mut given = given.into_iter().flatten();
        given.next().filter(|_| given.next().is_none())
    }

    /// What is wrong with the rule, and what to write instead.
    fn problem(&self, is_regression: bool) -> Option<(String, String)> {
        let problem = |what: &str, help: &str| Some((what.to_owned(), help.to_owned()));
        let Some(metric) = self.metric else {
            return problem("has no metric", "add `metric:`; `qeval gate --init` lists them");
        };
        let Some(limit) = self.limit() else {
            return problem(
                "needs exactly one of margin, max, min, max_noise_floors",
                "write one of them: `margin: 0.01` bounds the loss, `max`/`min` the metric itself",
            );
        };
        let (Limit::Margin(value) | Limit::Max(value) | Limit::Min(value) | Limit::MaxNoiseFloors(value)) =
            limit;
        if !value.is_finite() {
            return problem("has a limit that is no finite number", "write a number");
        }
        if !self.confidence.is_none_or(is_confidence) {
            return problem("has a confidence out of range", "write a number above 0.5 and at most 0.999");
        }
        let fits = match limit {
            Limit::Margin(_) => metric.neutral().is_some() || metric == Metric::Accuracy,
            Limit::MaxNoiseFloors(_) => {
                matches!(metric, Metric::KlDivergence | Metric::ReverseKl) && !is_regression
            }
            Limit::Max(_) | Limit::Min(_) => true,
        };
        if !fits {
            return problem(
                &format!("does not fit: {} has no such limit", metric.name()),
                "use max or min; max_noise_floors is for kl_divergence and reverse_kl against base",
            );
        }
        if is_regression
            && !(metric.is_pairable() && (matches!(limit, Limit::Margin(_)) || metric == Metric::Recovery))
        {
            return problem(
                &format!("cannot be held against an earlier run: {} with this limit", metric.name()),
                "regressions are margins on kl_divergence, reverse_kl, delta_nll, ppl_ratio, top1_agreement, \
                 top5_overlap, accuracy, recovery or flips",
            );
        }
        let of_questions = metric.source() == Source::Questions;
        if self.score.is_some() && !of_questions {
            return problem("names a score, but its metric is not about questions", "leave `score` out");
        }
        match self.per {
            Some(Per::Group | Per::Level) if !of_questions => {
                problem("is per group or level, but its metric is not about questions", "use `per: task`")
            }
            Some(Per::Overall) if metric.source() == Source::Tokens && !self.tasks.is_empty() => problem(
                "is overall and names tasks: token figures are saved for all text and for each task",
                "use `per: task`, or leave `tasks` out",
            ),
            Some(Per::Task | Per::Language) if metric.source() == Source::Weights => {
                problem("is per task, but its metric is about weights", "leave `per` out")
            }
            _ => None,
        }
    }
}

fn is_confidence(confidence: f64) -> bool {
    confidence > 0.5 && confidence <= 0.999
}

impl Policy {
    /// A preset by its name, or a file with everything that it extends.
    ///
    /// # Errors
    /// A file that cannot be read, is no policy, contradicts itself or extends what is not there.
    pub fn load(name_or_path: &str) -> Result<Self> {
        let policy = match preset(name_or_path) {
            Some(text) => Self::parse(text, Path::new(name_or_path))?,
            None => Self::read(Path::new(name_or_path))?,
        };
        let folder = Path::new(name_or_path).parent().unwrap_or(Path::new("")).to_owned();
        let path = PathBuf::from(name_or_path);
        let mut whole = policy.with_extended(&path, &folder, &mut vec![path.clone()])?;
        whole.name.get_or_insert_with(|| {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            stem.unwrap_or_else(|| name_or_path.to_owned())
        });
        for rules in [&mut whole.rules, &mut whole.regressions] {
            rules.retain(|rule| rule.enabled);
        }
        if whole.rules.is_empty() && whole.regressions.is_empty() {
            return Err(Error::file(&path, "the policy has no rule", "add one, or extend a preset"));
        }
        whole.check(&path)?;
        Ok(whole)
    }

    fn read(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::file(
                path,
                "there is no such policy",
                "name a file, or one of the presets strict, release, smoke; `qeval gate --init` writes a file to start from",
            ),
            _ => Error::io(path, "open")(source),
        })?;
        if metadata.len() > MOST_BYTES {
            return Err(Error::file(path, "is too large for a policy", "name a YAML file of rules"));
        }
        let text = std::fs::read_to_string(path).map_err(Error::io(path, "read the policy"))?;
        Self::parse(&text, path)
    }

    /// Reads YAML; what it extends is not looked at.
    fn parse(text: &str, path: &Path) -> Result<Self> {
        let help = "`qeval gate --init` writes a policy with every key explained; `qeval gate --schema` is its JSON Schema";
        let policy: Self = serde_yaml::from_str(text)
            .map_err(|reason| Error::file(path, format!("this is not a policy: {reason}"), help))?;
        for (list, rules) in [("rules", &policy.rules), ("regressions", &policy.regressions)] {
            let twice =
                rules.iter().enumerate().find(|(i, rule)| rules[..*i].iter().any(|r| r.name == rule.name));
            if let Some((_, rule)) = twice {
                let problem = format!("{list}: two rules are called `{}`", rule.name);
                return Err(Error::file(
                    path,
                    problem,
                    "give each a name of its own; it is what other policies replace",
                ));
            }
        }
        if policy.version != 1 {
            let problem = format!("version {} of the policy format, this qeval reads 1", policy.version);
            return Err(Error::file(path, problem, "write `version: 1`, or update qeval"));
        }
        Ok(policy)
    }

    /// This policy over those that it extends, the first one lowest.
    fn with_extended(self, path: &Path, folder: &Path, chain: &mut Vec<PathBuf>) -> Result<Self> {
        if chain.len() > MOST_EXTENDED {
            let names: Vec<String> = chain.iter().map(|path| path.display().to_string()).collect();
            let problem = format!("policies extend each other without end: {}", names.join(" extends "));
            return Err(Error::file(path, problem, "remove one of the `extends`"));
        }
        let mut below = Policy::default();
        for name in &self.extends.0 {
            let (next, place) = match preset(name) {
                Some(text) => (Self::parse(text, Path::new(name))?, PathBuf::from(name)),
                None => {
                    let place = folder.join(name);
                    (Self::read(&place)?, place)
                }
            };
            let folder = place.parent().unwrap_or(Path::new("")).to_owned();
            chain.push(place.clone());
            let next = next.with_extended(&place, &folder, chain)?;
            // What it is called and for is its own.
            below.cover(Policy { name: None, description: None, ..next });
            chain.pop();
        }
        below.cover(self);
        let count = below.rules.len() + below.regressions.len();
        if count > MOST_RULES {
            return Err(Error::file(path, format!("{count} rules are too many"), "use patterns"));
        }
        Ok(below)
    }

    /// Lays `upper` over this.
    fn cover(&mut self, upper: Self) {
        self.version = upper.version;
        self.name = upper.name.or(self.name.take());
        self.description = upper.description.or(self.description.take());
        self.confidence = upper.confidence.or(self.confidence);
        let Requirements { tasks, cousins, protocol, suites, previous } = upper.require;
        self.require.tasks.0.extend(tasks.0);
        self.require.cousins.0.extend(cousins.0);
        self.require.protocol = protocol.or(self.require.protocol.take());
        self.require.suites.extend(suites);
        self.require.previous = previous.or(self.require.previous);
        for (lower, upper) in [(&mut self.rules, upper.rules), (&mut self.regressions, upper.regressions)] {
            for rule in upper {
                match lower.iter_mut().find(|other| other.name == rule.name) {
                    Some(other) => *other = rule,
                    None => lower.push(rule),
                }
            }
        }
    }

    fn check(&self, path: &Path) -> Result<()> {
        if !self.confidence.is_none_or(is_confidence) {
            let help = "write a number above 0.5 and at most 0.999";
            return Err(Error::file(path, "the policy's confidence is out of range", help));
        }
        for (list, rules, is_regression) in
            [("rules", &self.rules, false), ("regressions", &self.regressions, true)]
        {
            for rule in rules {
                if let Some((problem, help)) = rule.problem(is_regression) {
                    return Err(Error::Key {
                        path: path.to_owned(),
                        key: format!("{list}.{}", rule.name),
                        problem,
                        help,
                    });
                }
            }
        }
        Ok(())
    }

    /// One-sided confidence of a rule's bounds.
    pub fn confidence_of(&self, rule: &Rule) -> f64 {
        rule.confidence.or(self.confidence).unwrap_or(CONFIDENCE)
    }
}

/// The text of a preset.
fn preset(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(preset, _)| *preset == name).map(|(_, text)| *text)
}

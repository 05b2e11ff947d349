//! Tables about answers: one row per model, task, metric and level (or group, or language), per written task, per
//! flipped sample.

use super::{
    Field, Of, Table, estimate_fields, flag, integer, metric_fields, number, of_all, of_fields, text,
};
use crate::comparison::tasks::{
    FlipCounts, GenerationComparison, PairedScores, QuestionsComparison, SideScores, TaskKey,
};
use crate::comparison::{Comparison, FlippedSample, ForeignComparison, SideText, TaskBytes, TaskMetrics};
use crate::stats::Estimate;

/// Every table about answers, in the order of their names' importance.
pub(super) fn tables(comparison: &Comparison) -> [Table; 7] {
    [
        questions(comparison),
        base_questions(comparison),
        generations(comparison),
        traces(comparison),
        flipped(comparison),
        bytes(comparison),
        base_text(comparison),
    ]
}

/// What a row of `questions` sums up, besides its figures.
struct Scores<'a> {
    /// `task`, `level`, `group`, `language` or `all`.
    scope: &'static str,
    key: Option<&'a TaskKey>,
    group: Option<&'a str>,
    language: Option<&'a str>,
    level: Option<(u32, &'a str)>,
    falls_off_at: Option<u32>,
    to_english: Option<&'a Estimate>,
    scores: &'a PairedScores,
}

fn rows_of(questions: &QuestionsComparison) -> Vec<Scores<'_>> {
    let bare = |scope, scores| Scores {
        scope,
        key: None,
        group: None,
        language: None,
        level: None,
        falls_off_at: None,
        to_english: None,
        scores,
    };
    let mut rows: Vec<Scores<'_>> = questions.overall.iter().map(|scores| bare("all", scores)).collect();
    rows.extend(
        questions.groups.iter().map(|g| Scores { group: Some(g.name.as_str()), ..bare("group", &g.scores) }),
    );
    rows.extend(questions.languages.iter().map(|l| Scores {
        language: Some(l.language.as_str()),
        to_english: l.difference_to_english.as_ref(),
        ..bare("language", &l.scores)
    }));
    for task in &questions.tasks {
        let of = |scope, level, scores| Scores {
            key: Some(&task.key),
            group: task.key.group.as_deref(),
            language: task.key.language.as_deref(),
            level,
            ..bare(scope, scores)
        };
        rows.push(Scores { falls_off_at: task.falls_off_at, ..of("task", None, &task.scores) });
        rows.extend(task.levels.iter().map(|l| of("level", Some((l.value, l.unit.as_str())), &l.scores)));
    }
    rows
}

/// `rows` of cousins of another vocabulary.
fn of_foreign<'a, T>(
    comparison: &'a Comparison,
    rows: impl Fn(&'a ForeignComparison) -> Vec<T>,
) -> Vec<Of<'a, T>> {
    let tag = |f: &'a ForeignComparison| {
        rows(f).into_iter().map(move |row| Of { role: "foreign", label: f.model.label.as_str(), row })
    };
    comparison.foreign.iter().flat_map(tag).collect()
}

fn questions(comparison: &Comparison) -> Table {
    type Row<'a> = Of<'a, Scores<'a>>;
    let mut rows: Vec<Row<'_>> =
        of_all(comparison, |q| q.questions.as_ref().map(rows_of).unwrap_or_default());
    rows.extend(of_foreign(comparison, |f| f.questions.as_ref().map(rows_of).unwrap_or_default()));
    let mut fields: Vec<Field<'_, Row<'_>>> = of_fields();
    let key = |get: fn(&TaskKey) -> Option<String>| move |r: &Row<'_>| get(r.row.key?);
    let flips = |get: fn(&FlipCounts) -> u64| move |r: &Row<'_>| r.row.scores.flips.as_ref().map(get);
    let share = |get: fn(&FlipCounts) -> f64| move |r: &Row<'_>| r.row.scores.flips.as_ref().map(get);
    fields.extend([
        text("scope", |r: &Row<'_>| Some(r.row.scope.to_owned())),
        text("task", key(|k| Some(k.task.clone()))),
        text("language", |r: &Row<'_>| r.row.language.map(str::to_owned)),
        text("group", |r: &Row<'_>| r.row.group.map(str::to_owned)),
        text("metric", key(|k| Some(k.metric.clone()))),
        text("filter", key(|k| k.filter.clone())),
        integer("level", |r: &Row<'_>| r.row.level.map(|(value, _)| u64::from(value))),
        text("level_unit", |r: &Row<'_>| r.row.level.map(|(_, unit)| unit.to_owned())),
        integer("falls_off_at", |r: &Row<'_>| r.row.falls_off_at.map(u64::from)),
        integer("samples", |r: &Row<'_>| Some(r.row.scores.samples as u64)),
        integer("not_judged", |r: &Row<'_>| Some(r.row.scores.not_judged as u64)),
        number("chance", |r: &Row<'_>| r.row.scores.chance),
        flag("is_uninformative", |r: &Row<'_>| Some(r.row.scores.uninformative.is_some())),
        text("uninformative", |r: &Row<'_>| r.row.scores.uninformative.clone()),
        integer("right_to_wrong", flips(|f| f.right_to_wrong)),
        integer("wrong_to_right", flips(|f| f.wrong_to_right)),
        integer("wrong_to_another_wrong", flips(|f| f.wrong_to_another_wrong)),
        number("flips", share(|f| f.flips)),
        number("answer_changes", share(|f| f.answer_changes)),
        number("p", |r: &Row<'_>| r.row.scores.test.as_ref().map(|test| test.p)),
        number("p_holm", |r: &Row<'_>| r.row.scores.p_holm),
        number("minimum_detectable_effect", |r: &Row<'_>| r.row.scores.minimum_detectable_effect),
    ]);
    fields.extend(estimate_fields("base", |r: &Row<'_>| Some(&r.row.scores.base)));
    fields.extend(estimate_fields("quant", |r: &Row<'_>| Some(&r.row.scores.quant)));
    fields.extend(estimate_fields("difference", |r: &Row<'_>| Some(&r.row.scores.difference)));
    fields.extend(estimate_fields("recovery", |r: &Row<'_>| r.row.scores.recovery.as_ref()));
    fields.extend(estimate_fields("chance_corrected_recovery", |r: &Row<'_>| {
        r.row.scores.chance_corrected_recovery.as_ref()
    }));
    fields.extend(estimate_fields("difference_to_english", |r: &Row<'_>| r.row.to_english));
    Table::new("questions", &fields, &rows)
}

fn base_questions(comparison: &Comparison) -> Table {
    type Row<'a> = (&'a SideScores, Option<(u32, &'a str)>, usize, &'a Estimate);
    let rows = comparison.base_questions.iter().flat_map(|side| &side.tasks).flat_map(|task| {
        let levels =
            task.levels.iter().map(move |l| (task, Some((l.value, l.unit.as_str())), l.samples, &l.score));
        std::iter::once((task, None, task.samples, &task.score)).chain(levels)
    });
    let rows: Vec<Row<'_>> = rows.collect();
    let label = comparison.base.label.as_str();
    let mut fields: Vec<Field<'_, Row<'_>>> = vec![
        text("label", |_: &Row<'_>| Some(label.to_owned())),
        text("task", |r: &Row<'_>| Some(r.0.key.task.clone())),
        text("language", |r: &Row<'_>| r.0.key.language.clone()),
        text("group", |r: &Row<'_>| r.0.key.group.clone()),
        text("metric", |r: &Row<'_>| Some(r.0.key.metric.clone())),
        text("filter", |r: &Row<'_>| r.0.key.filter.clone()),
        integer("level", |r: &Row<'_>| r.1.map(|(value, _)| u64::from(value))),
        text("level_unit", |r: &Row<'_>| r.1.map(|(_, unit)| unit.to_owned())),
        integer("samples", |r: &Row<'_>| Some(r.2 as u64)),
        // Only a whole task counts what was not judged.
        integer("not_judged", |r: &Row<'_>| r.1.is_none().then_some(r.0.not_judged as u64)),
        number("chance", |r: &Row<'_>| r.0.chance),
    ];
    fields.extend(estimate_fields("score", |r: &Row<'_>| Some(r.3)));
    Table::new("base_questions", &fields, &rows)
}

fn generations(comparison: &Comparison) -> Table {
    type Row<'a> = Of<'a, (&'a str, &'a GenerationComparison)>;
    let rows: Vec<Row<'_>> =
        of_all(comparison, |q| q.generations.iter().map(|g| (g.task.as_str(), &g.figures)).collect());
    let mut fields: Vec<Field<'_, Row<'_>>> = of_fields();
    fields.extend([
        text("task", |r: &Row<'_>| Some(r.row.0.to_owned())),
        integer("samples", |r: &Row<'_>| Some(r.row.1.samples as u64)),
        number("first_divergence_median", |r: &Row<'_>| Some(r.row.1.first_divergence_median)),
    ]);
    type Get = fn(&GenerationComparison) -> &Estimate;
    let estimates: [(&str, Get); 10] = [
        ("identical", |g| &g.identical),
        ("first_divergence_share", |g| &g.first_divergence_share),
        ("base_tokens", |g| &g.base_tokens),
        ("quant_tokens", |g| &g.quant_tokens),
        ("base_truncated", |g| &g.base_truncated),
        ("quant_truncated", |g| &g.quant_truncated),
        ("base_repetition", |g| &g.base_repetition),
        ("quant_repetition", |g| &g.quant_repetition),
        ("base_unclosed_think", |g| &g.base_unclosed_think),
        ("quant_unclosed_think", |g| &g.quant_unclosed_think),
    ];
    for (name, get) in estimates {
        fields.extend(estimate_fields(name, move |r: &Row<'_>| Some(get(r.row.1))));
    }
    Table::new("generations", &fields, &rows)
}

fn traces(comparison: &Comparison) -> Table {
    type Row<'a> = Of<'a, &'a TaskMetrics>;
    let rows: Vec<Row<'_>> = of_all(comparison, |q| q.traces.iter().collect());
    let mut fields: Vec<Field<'_, Row<'_>>> = of_fields();
    fields.push(text("task", |r: &Row<'_>| Some(r.row.task.clone())));
    fields.extend(metric_fields(|r: &Row<'_>| r.row.metrics.as_ref()));
    Table::new("traces", &fields, &rows)
}

fn flipped(comparison: &Comparison) -> Table {
    type Row<'a> = Of<'a, &'a FlippedSample>;
    let mut rows: Vec<Row<'_>> = of_all(comparison, |q| q.flipped.iter().collect());
    rows.extend(of_foreign(comparison, |f| f.flipped.iter().collect()));
    let mut fields: Vec<Field<'_, Row<'_>>> = of_fields();
    fields.extend([
        text("task", |r: &Row<'_>| Some(r.row.task.clone())),
        text("sample", |r: &Row<'_>| Some(r.row.sample.clone())),
        text("question", |r: &Row<'_>| Some(r.row.question.clone())),
        text("expected", |r: &Row<'_>| Some(r.row.expected.clone())),
        text("base_answer", |r: &Row<'_>| Some(r.row.base_answer.clone())),
        text("quant_answer", |r: &Row<'_>| Some(r.row.quant_answer.clone())),
        number("base_score", |r: &Row<'_>| Some(r.row.base_score)),
        number("quant_score", |r: &Row<'_>| Some(r.row.quant_score)),
    ]);
    Table::new("flipped", &fields, &rows)
}

fn bytes(comparison: &Comparison) -> Table {
    type Row<'a> = Of<'a, &'a TaskBytes>;
    let mut rows: Vec<Row<'_>> = of_all(comparison, |q| q.rolling.iter().collect());
    rows.extend(of_foreign(comparison, |f| f.bytes.iter().collect()));
    let mut fields: Vec<Field<'_, Row<'_>>> = of_fields();
    fields.extend([
        text("task", |r: &Row<'_>| Some(r.row.task.clone())),
        integer("documents", |r: &Row<'_>| Some(r.row.figures.documents as u64)),
        integer("not_finite", |r: &Row<'_>| Some(r.row.figures.not_finite as u64)),
    ]);
    fields
        .extend(estimate_fields("base_bits_per_byte", |r: &Row<'_>| Some(&r.row.figures.base_bits_per_byte)));
    fields.extend(estimate_fields("quant_bits_per_byte", |r: &Row<'_>| {
        Some(&r.row.figures.quant_bits_per_byte)
    }));
    fields.extend(estimate_fields("delta_bits_per_byte", |r: &Row<'_>| {
        Some(&r.row.figures.delta_bits_per_byte)
    }));
    fields.extend(estimate_fields("base_word_perplexity", |r: &Row<'_>| {
        Some(&r.row.figures.base_word_perplexity)
    }));
    fields.extend(estimate_fields("quant_word_perplexity", |r: &Row<'_>| {
        Some(&r.row.figures.quant_word_perplexity)
    }));
    Table::new("bytes", &fields, &rows)
}

fn base_text(comparison: &Comparison) -> Table {
    type Row<'a> = &'a SideText;
    let rows: Vec<Row<'_>> = comparison.base_text.iter().collect();
    let label = comparison.base.label.as_str();
    let mut fields: Vec<Field<'_, Row<'_>>> = vec![
        text("label", |_: &Row<'_>| Some(label.to_owned())),
        text("task", |r: &Row<'_>| r.task.clone()),
        integer("scored_tokens", |r: &Row<'_>| Some(r.scored_tokens as u64)),
        integer("non_finite_tokens", |r: &Row<'_>| Some(r.non_finite_tokens as u64)),
    ];
    fields.extend(estimate_fields("nll", |r: &Row<'_>| Some(&r.nll)));
    fields.extend(estimate_fields("perplexity", |r: &Row<'_>| Some(&r.perplexity)));
    fields.extend(estimate_fields("bits_per_byte", |r: &Row<'_>| r.bits_per_byte.as_ref()));
    fields.extend(estimate_fields("entropy", |r: &Row<'_>| Some(&r.entropy)));
    Table::new("base_text", &fields, &rows)
}

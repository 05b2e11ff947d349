//! A comparison as tidy tables: one row per thing that was observed, one column per figure.
//!
//! Columns are named as in the saved comparison; an estimate takes three (`x`, `x_lower`, `x_upper`).
//! What was not measured is empty, never 0. Which columns a table has does not depend on its rows.
//! Plain vectors: how they are written is not known here.

mod answers;

use crate::comparison::{
    Bucket, Comparison, Distribution, ErrorView, LayerErrors, LinearComparison, ModelCard, QuantComparison,
    RoundingNoise, Stage, TaskCard, TokenMetrics, WeightComparison,
};
use crate::stats::Estimate;

/// A table: its name and its columns, all of the same length.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    /// Name of the file without extension.
    pub(super) name: &'static str,
    /// Name and values of every column.
    pub(super) columns: Vec<(String, Values)>,
}

/// The values of a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// Text.
    Text(Vec<Option<String>>),
    /// Counts and indices.
    Integer(Vec<Option<u64>>),
    /// Figures.
    Number(Vec<Option<f64>>),
    /// Yes or no.
    Flag(Vec<Option<bool>>),
}

/// Every table but that of tokens.
pub(super) fn tables(comparison: &Comparison) -> [Table; 13] {
    let [questions, base_questions, generations, traces, flipped, bytes, base_text] =
        answers::tables(comparison);
    [
        models(comparison),
        tasks(comparison),
        breakdowns(comparison),
        layers(comparison),
        linears(comparison),
        weights(comparison),
        questions,
        base_questions,
        generations,
        traces,
        flipped,
        bytes,
        base_text,
    ]
}

impl Table {
    fn new<R>(name: &'static str, fields: &[Field<'_, R>], rows: &[R]) -> Self {
        let columns = fields.iter().map(|field| (field.name.clone(), field.get.over(rows))).collect();
        Table { name, columns }
    }
}

/// A column before its rows are known: its name and how to take it from a row.
struct Field<'f, R> {
    name: String,
    get: Get<'f, R>,
}

/// Takes a value of type `T` from a row; None if it was not measured.
type Getter<'f, R, T> = Box<dyn Fn(&R) -> Option<T> + 'f>;

enum Get<'f, R> {
    Text(Getter<'f, R, String>),
    Integer(Getter<'f, R, u64>),
    Number(Getter<'f, R, f64>),
    Flag(Getter<'f, R, bool>),
}

impl<R> Get<'_, R> {
    fn over(&self, rows: &[R]) -> Values {
        match self {
            Get::Text(get) => Values::Text(rows.iter().map(get).collect()),
            Get::Integer(get) => Values::Integer(rows.iter().map(get).collect()),
            Get::Number(get) => Values::Number(rows.iter().map(get).collect()),
            Get::Flag(get) => Values::Flag(rows.iter().map(get).collect()),
        }
    }
}

/// A row that belongs to a model: which one, and what part it plays.
struct Of<'a, T> {
    role: &'static str,
    label: &'a str,
    row: T,
}

/// `rows` of every quant and of the noise floor.
fn of_all<'a, T>(comparison: &'a Comparison, rows: impl Fn(&'a QuantComparison) -> Vec<T>) -> Vec<Of<'a, T>> {
    let quants = comparison.quants.iter().map(|q| ("quant", q));
    let floor = comparison.noise_floor.iter().map(|q| ("noise_floor", q));
    let tag = |(role, q): (&'static str, &'a QuantComparison)| {
        rows(q).into_iter().map(move |row| Of { role, label: q.model.label.as_str(), row })
    };
    quants.chain(floor).flat_map(tag).collect()
}

fn of_fields<'a, T: 'a>() -> Vec<Field<'a, Of<'a, T>>> {
    vec![
        text("role", |r: &Of<'a, T>| Some(r.role.to_owned())),
        text("label", |r: &Of<'a, T>| Some(r.label.to_owned())),
    ]
}

fn models(comparison: &Comparison) -> Table {
    type Row<'a> = Of<'a, (&'a ModelCard, Option<&'a TokenMetrics>, Option<&'a RoundingNoise>)>;
    let base =
        Of { role: "base", label: comparison.base.label.as_str(), row: (&comparison.base, None, None) };
    let quants = of_all(comparison, |q| vec![(&q.model, Some(&q.overall), q.rounding_noise.as_ref())]);
    let foreign = comparison.foreign.iter().map(|f| {
        let label = f.model.label.as_str();
        Of { role: "foreign", label, row: (&f.model, None, None) }
    });
    let rows: Vec<Row<'_>> = std::iter::once(base).chain(quants).chain(foreign).collect();
    let mut fields: Vec<Field<'_, Row<'_>>> = of_fields();
    fields.extend([
        text("path", |r: &Row<'_>| Some(r.row.0.path.clone())),
        text("format", |r: &Row<'_>| Some(r.row.0.format.clone())),
        text("architecture", |r: &Row<'_>| Some(r.row.0.architecture.clone())),
        integer("num_hidden_layers", |r: &Row<'_>| Some(r.row.0.num_hidden_layers as u64)),
        integer("hidden_size", |r: &Row<'_>| Some(r.row.0.hidden_size as u64)),
        integer("vocab_size", |r: &Row<'_>| Some(r.row.0.vocab_size as u64)),
        integer("parameters", |r: &Row<'_>| Some(r.row.0.parameters)),
        integer("weight_bytes", |r: &Row<'_>| Some(r.row.0.weight_bytes)),
        number("bits_per_weight", |r: &Row<'_>| Some(r.row.0.bits_per_weight)),
        number("tokens_per_second", |r: &Row<'_>| r.row.0.tokens_per_second),
        number("excluded_mass", |r: &Row<'_>| Some(r.row.0.excluded_mass)),
        text("activations", |r: &Row<'_>| Some(r.row.0.activations.clone())),
        text("kv_cache", |r: &Row<'_>| r.row.0.kv_cache.clone()),
        number("rounding_noise_kl_mean", |r: &Row<'_>| r.row.2.map(|noise| noise.kl_divergence.value)),
    ]);
    fields.extend(metric_fields(|r: &Row<'_>| r.row.1));
    Table::new("models", &fields, &rows)
}

fn tasks(comparison: &Comparison) -> Table {
    type Row<'a> = Of<'a, (&'a str, Option<&'a TaskCard>, Option<&'a TokenMetrics>)>;
    let card = |name: &str| comparison.tasks.iter().find(|card| card.name == name);
    let rows: Vec<Row<'_>> = of_all(comparison, |q| {
        q.tasks.iter().map(|t| (t.task.as_str(), card(&t.task), t.metrics.as_ref())).collect()
    });
    let mut fields: Vec<Field<'_, Row<'_>>> = of_fields();
    fields.extend([
        text("task", |r: &Row<'_>| Some(r.row.0.to_owned())),
        text("language", |r: &Row<'_>| r.row.1.and_then(|card| card.language.clone())),
        integer("suite_version", |r: &Row<'_>| r.row.1.map(|card| u64::from(card.suite_version))),
        integer("documents", |r: &Row<'_>| r.row.1.map(|card| card.documents as u64)),
        integer("documents_dropped", |r: &Row<'_>| r.row.1.map(|card| card.documents_dropped as u64)),
        integer("tokens", |r: &Row<'_>| r.row.1.map(|card| card.tokens as u64)),
        integer("unscored_tokens", |r: &Row<'_>| r.row.1.map(|card| card.unscored_tokens as u64)),
        integer("dropped_tokens", |r: &Row<'_>| r.row.1.map(|card| card.dropped_tokens as u64)),
        integer("scored_bytes", |r: &Row<'_>| r.row.1.map(|card| card.scored_bytes as u64)),
    ]);
    fields.extend(metric_fields(|r: &Row<'_>| r.row.2));
    Table::new("tasks", &fields, &rows)
}

fn breakdowns(comparison: &Comparison) -> Table {
    type Row<'a> = Of<'a, (&'static str, &'a Bucket)>;
    let rows: Vec<Row<'_>> = of_all(comparison, |q| {
        let confidence = q.by_base_confidence.iter().map(|b| ("base_confidence", b));
        confidence.chain(q.by_context_position.iter().map(|b| ("context_position", b))).collect()
    });
    let mut fields: Vec<Field<'_, Row<'_>>> = of_fields();
    fields.extend([
        text("by", |r: &Row<'_>| Some(r.row.0.to_owned())),
        number("from", |r: &Row<'_>| Some(r.row.1.from)),
        number("to", |r: &Row<'_>| Some(r.row.1.to)),
    ]);
    fields.extend(metric_fields(|r: &Row<'_>| r.row.1.metrics.as_ref()));
    Table::new("breakdowns", &fields, &rows)
}

/// One view of one point: cumulative or injected, over which positions; or CKA alone.
struct LayerRow<'a> {
    stage: Stage,
    layer: usize,
    base_layer: usize,
    view: &'static str,
    positions: &'static str,
    errors: Option<&'a ErrorView>,
    cka: Option<f64>,
    router_agreement: Option<f64>,
}

fn layers(comparison: &Comparison) -> Table {
    type Row<'a> = Of<'a, LayerRow<'a>>;
    let rows: Vec<Row<'_>> = of_all(comparison, |q| {
        let rows = q.layers.iter().flat_map(|l| {
            let agreement = |view: &str| match view {
                "cumulative" => l.router_agreement,
                "injected" => l.injected_router_agreement,
                _ => None,
            };
            let row = |view, positions, errors, cka| LayerRow {
                stage: l.stage,
                layer: l.layer,
                base_layer: l.base_layer,
                view,
                positions,
                errors,
                cka,
                router_agreement: agreement(view).filter(|_| positions == "all"),
            };
            let views = [("cumulative", l.cumulative.as_ref()), ("injected", l.injected.as_ref())];
            let errors = views.into_iter().flat_map(|(name, errors)| views_of(name, errors));
            let cka = l.cka.map(|cka| row("cka", "all", None, Some(cka)));
            errors
                .map(move |(view, positions, errors)| row(view, positions, Some(errors), None))
                .chain(cka)
                .collect::<Vec<_>>()
        });
        rows.collect()
    });
    let mut fields: Vec<Field<'_, Row<'_>>> = of_fields();
    let stage = |stage: Stage| match stage {
        Stage::Embedding => "embedding",
        Stage::Layer => "layer",
    };
    fields.extend([
        text("stage", move |r: &Row<'_>| Some(stage(r.row.stage).to_owned())),
        integer("layer", |r: &Row<'_>| Some(r.row.layer as u64)),
        integer("base_layer", |r: &Row<'_>| Some(r.row.base_layer as u64)),
        text("view", |r: &Row<'_>| Some(r.row.view.to_owned())),
        text("positions", |r: &Row<'_>| Some(r.row.positions.to_owned())),
    ]);
    fields.extend(error_fields(|r: &Row<'_>| r.row.errors));
    fields.push(number("cka", |r: &Row<'_>| r.row.cka));
    fields.push(number("router_agreement", |r: &Row<'_>| r.row.router_agreement));
    Table::new("layers", &fields, &rows)
}

fn linears(comparison: &Comparison) -> Table {
    type Row<'a> = Of<'a, (&'a LinearComparison, &'static str, &'static str, &'a ErrorView)>;
    let rows: Vec<Row<'_>> = of_all(comparison, |q| {
        let rows = q.linears.iter().flat_map(|l| {
            let cumulative = views_of("cumulative", Some(&l.cumulative));
            let injected = views_of("injected", Some(&l.injected));
            cumulative.chain(injected).map(move |(view, positions, errors)| (l, view, positions, errors))
        });
        rows.collect()
    });
    let mut fields: Vec<Field<'_, Row<'_>>> = of_fields();
    fields.extend([
        integer("layer", |r: &Row<'_>| Some(r.row.0.layer as u64)),
        text("linear", |r: &Row<'_>| Some(r.row.0.linear.clone())),
        text("view", |r: &Row<'_>| Some(r.row.1.to_owned())),
        text("positions", |r: &Row<'_>| Some(r.row.2.to_owned())),
    ]);
    fields.extend(error_fields(|r: &Row<'_>| Some(r.row.3)));
    Table::new("linears", &fields, &rows)
}

fn views_of<'a>(
    name: &'static str,
    errors: Option<&'a LayerErrors>,
) -> impl Iterator<Item = (&'static str, &'static str, &'a ErrorView)> + use<'a> {
    let views = errors.into_iter().flat_map(|e| {
        std::iter::once(("all", &e.all)).chain(e.without_first.iter().map(|view| ("without_first", view)))
    });
    views.map(move |(positions, view)| (name, positions, view))
}

fn weights(comparison: &Comparison) -> Table {
    type Row<'a> = Of<'a, &'a WeightComparison>;
    let rows: Vec<Row<'_>> = of_all(comparison, |q| q.weights.iter().collect());
    let mut fields: Vec<Field<'_, Row<'_>>> = of_fields();
    let shape = |shape: &[usize]| shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    fields.extend([
        text("name", |r: &Row<'_>| Some(r.row.name.clone())),
        text("encoding", |r: &Row<'_>| Some(r.row.encoding.clone())),
        text("base_encoding", |r: &Row<'_>| Some(r.row.base_encoding.clone())),
        text("shape", move |r: &Row<'_>| Some(shape(&r.row.shape))),
        number("bits_per_weight", |r: &Row<'_>| Some(r.row.bits_per_weight)),
        number("sqnr_db", |r: &Row<'_>| r.row.sqnr_db),
        flag("identical", |r: &Row<'_>| Some(r.row.identical)),
    ]);
    Table::new("weights", &fields, &rows)
}

fn error_fields<'f, R: 'f>(errors: impl Fn(&R) -> Option<&ErrorView> + Copy + 'f) -> Vec<Field<'f, R>> {
    let figure =
        move |name: &str, get: fn(&ErrorView) -> Option<f64>| number(name, move |r: &R| get(errors(r)?));
    vec![
        integer("tokens", move |r: &R| Some(errors(r)?.tokens)),
        flag("identical", move |r: &R| Some(errors(r)?.identical)),
        figure("sqnr_db", |e| e.sqnr_db),
        figure("update_sqnr_db", |e| e.update_sqnr_db),
        figure("relative_error", |e| Some(e.relative_error)),
        figure("cosine_distance", |e| Some(e.cosine_distance)),
        figure("max_abs_error", |e| Some(e.max_abs_error)),
        figure("base_kurtosis", |e| Some(e.base_kurtosis)),
        figure("quant_kurtosis", |e| Some(e.quant_kurtosis)),
        figure("base_max_over_rms", |e| Some(e.base_max_over_rms)),
        figure("quant_max_over_rms", |e| Some(e.quant_max_over_rms)),
        integer("non_finite", move |r: &R| Some(errors(r)?.non_finite)),
    ]
}

type GetEstimate = fn(&TokenMetrics) -> Option<&Estimate>;
type GetDistribution = fn(&TokenMetrics) -> &Distribution;

/// Every figure of [`TokenMetrics`], estimates with their intervals.
fn metric_fields<'f, R: 'f>(metrics: impl Fn(&R) -> Option<&TokenMetrics> + Copy + 'f) -> Vec<Field<'f, R>> {
    let estimates: [(&str, GetEstimate); 19] = [
        ("base_nll", |m| Some(&m.base_nll)),
        ("quant_nll", |m| Some(&m.quant_nll)),
        ("base_perplexity", |m| Some(&m.base_perplexity)),
        ("quant_perplexity", |m| Some(&m.quant_perplexity)),
        ("delta_nll", |m| Some(&m.delta_nll)),
        ("ppl_ratio", |m| Some(&m.ppl_ratio)),
        ("base_bits_per_byte", |m| m.base_bits_per_byte.as_ref()),
        ("quant_bits_per_byte", |m| m.quant_bits_per_byte.as_ref()),
        ("base_entropy", |m| Some(&m.base_entropy)),
        ("quant_entropy", |m| Some(&m.quant_entropy)),
        ("top1_agreement", |m| Some(&m.top1_agreement)),
        ("top5_overlap", |m| Some(&m.top5_overlap)),
        ("delta_p_mean", |m| Some(&m.delta_p.mean)),
        ("delta_p_rms", |m| Some(&m.delta_p.rms)),
        ("delta_p_p1", |m| m.delta_p.p1.as_ref()),
        ("delta_p_p10", |m| m.delta_p.p10.as_ref()),
        ("delta_p_median", |m| m.delta_p.median.as_ref()),
        ("delta_p_p90", |m| m.delta_p.p90.as_ref()),
        ("delta_p_p99", |m| m.delta_p.p99.as_ref()),
    ];
    let distributions: [(&str, GetDistribution); 2] =
        [("kl_divergence", |m| &m.kl_divergence), ("reverse_kl", |m| &m.reverse_kl)];
    let mut fields = vec![
        integer("scored_tokens", move |r: &R| Some(metrics(r)?.scored_tokens as u64)),
        integer("non_finite_tokens", move |r: &R| Some(metrics(r)?.non_finite_tokens as u64)),
        integer("clusters", move |r: &R| Some(metrics(r)?.delta_nll.clusters)),
    ];
    for (name, get) in estimates {
        fields.extend(estimate_fields(name, move |r: &R| get(metrics(r)?)));
    }
    for (name, get) in distributions {
        let percentile = |part: &str, of: fn(&Distribution) -> Option<&Estimate>| {
            estimate_fields(&format!("{name}_{part}"), move |r: &R| of(get(metrics(r)?)))
        };
        fields.extend(percentile("mean", |d| Some(&d.mean)));
        fields.extend(percentile("median", |d| d.median.as_ref()));
        fields.extend(percentile("p90", |d| d.p90.as_ref()));
        fields.extend(percentile("p95", |d| d.p95.as_ref()));
        fields.extend(percentile("p99", |d| d.p99.as_ref()));
        fields.extend(percentile("p99_9", |d| d.p99_9.as_ref()));
        fields.push(number(&format!("{name}_max"), move |r: &R| Some(get(metrics(r)?).max)));
    }
    fields
}

fn estimate_fields<'f, R: 'f>(
    name: &str,
    estimate: impl Fn(&R) -> Option<&Estimate> + Copy + 'f,
) -> [Field<'f, R>; 3] {
    [
        number(name, move |r: &R| Some(estimate(r)?.value)),
        number(&format!("{name}_lower"), move |r: &R| estimate(r)?.lower),
        number(&format!("{name}_upper"), move |r: &R| estimate(r)?.upper),
    ]
}

fn text<'f, R>(name: &str, get: impl Fn(&R) -> Option<String> + 'f) -> Field<'f, R> {
    Field { name: name.to_owned(), get: Get::Text(Box::new(get)) }
}

fn integer<'f, R>(name: &str, get: impl Fn(&R) -> Option<u64> + 'f) -> Field<'f, R> {
    Field { name: name.to_owned(), get: Get::Integer(Box::new(get)) }
}

fn number<'f, R>(name: &str, get: impl Fn(&R) -> Option<f64> + 'f) -> Field<'f, R> {
    Field { name: name.to_owned(), get: Get::Number(Box::new(get)) }
}

fn flag<'f, R>(name: &str, get: impl Fn(&R) -> Option<bool> + 'f) -> Field<'f, R> {
    Field { name: name.to_owned(), get: Get::Flag(Box::new(get)) }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn column<'t>(table: &'t Table, name: &str) -> &'t Values {
        &table.columns.iter().find(|(n, _)| n == name).expect(name).1
    }

    #[test]
    fn tables_hold_what_the_comparison_holds() {
        let comparison = fixture::comparison();
        let [models, tasks, breakdowns, layers, linears, weights, ..] = tables(&comparison);
        let rows = |table: &Table| match &table.columns[0].1 {
            Values::Text(values) => values.len(),
            _ => panic!("every table begins with a role"),
        };
        assert_eq!(rows(&models), 7, "base, five cousins, the noise floor");
        assert_eq!(rows(&tasks), 6 * 3);
        assert_eq!(rows(&breakdowns), 6 * (5 + 3));
        assert_eq!(rows(&layers), 6 * 7 * 2 * 2);
        assert_eq!(rows(&linears), 0);
        assert_eq!(rows(&weights), 6 * 36);

        let kl = &comparison.quants[1].overall.kl_divergence;
        let Values::Number(means) = column(&models, "kl_divergence_mean") else { panic!() };
        assert_eq!((means[0], means[2]), (None, Some(kl.mean.value)), "base has no divergence, not one of 0");
        let Values::Number(uppers) = column(&models, "kl_divergence_p99_upper") else { panic!() };
        assert_eq!(uppers[2], kl.p99.as_ref().and_then(|p| p.upper));
        let Values::Number(sqnr) = column(&layers, "sqnr_db") else { panic!() };
        let injected = comparison.quants[0].layers[0].injected.as_ref().map(|e| e.all.sqnr_db);
        assert_eq!(
            Some(sqnr[2]),
            injected,
            "rows of a layer: cumulative, cumulative without first, injected"
        );
    }

    #[test]
    fn answers_are_in_long_form() {
        let comparison = fixture::with_questions();
        let tables = tables(&comparison);
        let named = |name: &str| tables.iter().find(|t| t.name == name).expect(name);
        let texts = |table: &Table, name: &str| match column(table, name) {
            Values::Text(values) => values.clone(),
            _ => panic!("{name} is text"),
        };
        let questions = named("questions");
        let scopes = texts(questions, "scope");
        let count = |scope: &str| scopes.iter().filter(|s| s.as_deref() == Some(scope)).count();
        let counts = ["all", "group", "language", "task", "level"].map(count);
        assert_eq!(counts, [3, 6, 9, 18, 15], "of three cousins: six rows of five tasks, five levels");
        let Values::Integer(levels) = column(questions, "level") else { panic!() };
        let (roles, tasks) = (texts(questions, "role"), texts(questions, "task"));
        assert!(roles.iter().any(|role| role.as_deref() == Some("foreign")));
        let Values::Number(difference) = column(questions, "difference") else { panic!() };
        let Values::Number(upper) = column(questions, "difference_upper") else { panic!() };
        let wanted = comparison.quants[1].questions.as_ref().unwrap();
        let wanted = wanted.tasks.iter().find(|t| !t.levels.is_empty()).unwrap();
        let row = (0..scopes.len())
            .filter(|&i| tasks[i].as_deref() == Some("reasoning/sums") && levels[i] == Some(4));
        let row = row.collect::<Vec<_>>()[1];
        assert_eq!(difference[row], Some(wanted.levels[3].scores.difference.value));
        assert_eq!(upper[row], wanted.levels[3].scores.difference.upper);
        assert!((0..scopes.len()).all(|i| levels[i].is_some() == (scopes[i].as_deref() == Some("level"))));
        let Values::Flag(without) = column(questions, "is_uninformative") else { panic!() };
        let riddles = (0..scopes.len()).filter(|&i| tasks[i].as_deref() == Some("reasoning/riddles"));
        assert!(riddles.map(|i| without[i]).all(|flag| flag == Some(true)));
        assert_eq!(texts(named("generations"), "task").len(), 2);
        assert_eq!(texts(named("traces"), "task").len(), 2);
        assert_eq!(texts(named("bytes"), "role"), ["quant", "quant", "foreign"].map(|r| Some(r.to_owned())));
        let answers = texts(named("flipped"), "quant_answer");
        assert_eq!(
            answers,
            vec![Some(fixture::HOSTILE_ANSWER.to_owned()); 3],
            "tables hold texts as they are"
        );
        assert_eq!(texts(named("base_questions"), "task").len(), 6 + 5);
        assert_eq!(texts(named("base_text"), "task")[0], None, "all texts together have no task");
    }

    #[test]
    fn columns_of_a_table_are_unique_and_equally_long() {
        for table in tables(&fixture::with_questions()) {
            let mut names: Vec<&String> = table.columns.iter().map(|(name, _)| name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), table.columns.len(), "{}", table.name);
        }
    }

    #[test]
    fn columns_do_not_depend_on_the_rows() {
        let names = |c: &Comparison| {
            tables(c).map(|t| t.columns.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        };
        let mut bare = fixture::of(Vec::new());
        bare.noise_floor = None;
        assert_eq!(names(&bare), names(&fixture::comparison()));
        assert_eq!(names(&fixture::alone()), names(&fixture::with_questions()));
    }
}

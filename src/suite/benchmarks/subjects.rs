//! The subjects of MMLU, CMMLU, MATH and BIG-Bench Hard, and what is said of each in a prompt.
//!
//! Facts of the benchmarks and of their protocols in lm-evaluation-harness 0.4.13
//! (`lm_eval/tasks/{mmlu,cmmlu,hendrycks_math,bbh}`).

use super::Part;

/// Subjects in English.
macro_rules! subjects {
    ($($name:literal)*) => { &[$(Part { name: $name, language: "en" }),*] };
}

/// Subjects with their names in Chinese.
macro_rules! in_chinese {
    ($(($name:literal, $chinese:literal)),* $(,)?) => {
        /// CMMLU's 67 subjects.
        pub(super) const CMMLU: &[Part] = &[$(Part { name: $name, language: "zh" }),*];

        /// A subject of CMMLU in Chinese; another name stays as it is.
        pub(super) fn in_chinese(subject: &str) -> &str {
            match subject {
                $($name => $chinese,)*
                other => other,
            }
        }
    };
}

/// Tasks with what their description says and how an answer is taken out.
macro_rules! tasks {
    ($(($name:literal, $answer:expr, $about:literal)),* $(,)?) => {
        /// BIG-Bench Hard's 27 tasks.
        pub(super) const BBH: &[Part] = &[$(Part { name: $name, language: "en" }),*];

        /// What a prompt of a task begins with.
        pub(super) fn describe(task: &str) -> &'static str {
            match task {
                $($name => $about,)*
                _ => "",
            }
        }

        /// How an answer to a task is taken out of what was written.
        pub(super) fn answers_of(task: &str) -> BbhAnswer {
            use BbhAnswer::{Letter, Number, Pattern, Words, YesNo};
            match task {
                $($name => $answer,)*
                _ => Words,
            }
        }
    };
}

/// What an answer of BIG-Bench Hard looks like, and what lm-evaluation-harness does beyond a pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum BbhAnswer {
    /// Exactly what this pattern finds first.
    Pattern(&'static str),
    /// `(A)`; the harness also looks for the option's text and for a bare letter.
    Letter,
    /// Digits; the harness also reads numbers in English words.
    Number,
    /// yes or no; the harness also knows a few sentences that mean it.
    YesNo,
    /// Words of the question in another order; the harness looks for each of them.
    Words,
}

/// Brackets and spaces. (The harness's pattern has a second form after a space, which can never match first.)
const CLOSING: &str = r#"([" \[\(<{}>\)\]]+)"#;

/// MMLU's 57 subjects.
pub(super) const MMLU: &[Part] = subjects![
    "abstract_algebra" "anatomy" "astronomy" "business_ethics" "clinical_knowledge" "college_biology"
    "college_chemistry" "college_computer_science" "college_mathematics" "college_medicine"
    "college_physics" "computer_security" "conceptual_physics" "econometrics" "electrical_engineering"
    "elementary_mathematics" "formal_logic" "global_facts" "high_school_biology" "high_school_chemistry"
    "high_school_computer_science" "high_school_european_history" "high_school_geography"
    "high_school_government_and_politics" "high_school_macroeconomics" "high_school_mathematics"
    "high_school_microeconomics" "high_school_physics" "high_school_psychology" "high_school_statistics"
    "high_school_us_history" "high_school_world_history" "human_aging" "human_sexuality"
    "international_law" "jurisprudence" "logical_fallacies" "machine_learning" "management" "marketing"
    "medical_genetics" "miscellaneous" "moral_disputes" "moral_scenarios" "nutrition" "philosophy"
    "prehistory" "professional_accounting" "professional_law" "professional_medicine"
    "professional_psychology" "public_relations" "security_studies" "sociology" "us_foreign_policy"
    "virology" "world_religions"
];

/// MATH's seven subjects.
pub(super) const MATH: &[Part] = subjects![
    "algebra" "counting_and_probability" "geometry" "intermediate_algebra" "number_theory" "prealgebra"
    "precalculus"
];

in_chinese![
    ("agronomy", "农学"),
    ("anatomy", "解剖学"),
    ("ancient_chinese", "古汉语"),
    ("arts", "艺术学"),
    ("astronomy", "天文学"),
    ("business_ethics", "商业伦理"),
    ("chinese_civil_service_exam", "中国公务员考试"),
    ("chinese_driving_rule", "中国驾驶规则"),
    ("chinese_food_culture", "中国饮食文化"),
    ("chinese_foreign_policy", "中国外交政策"),
    ("chinese_history", "中国历史"),
    ("chinese_literature", "中国文学"),
    ("chinese_teacher_qualification", "中国教师资格"),
    ("clinical_knowledge", "临床知识"),
    ("college_actuarial_science", "大学精算学"),
    ("college_education", "大学教育学"),
    ("college_engineering_hydrology", "大学工程水文学"),
    ("college_law", "大学法律"),
    ("college_mathematics", "大学数学"),
    ("college_medical_statistics", "大学医学统计"),
    ("college_medicine", "大学医学"),
    ("computer_science", "计算机科学"),
    ("computer_security", "计算机安全"),
    ("conceptual_physics", "概念物理学"),
    ("construction_project_management", "建设工程管理"),
    ("economics", "经济学"),
    ("education", "教育学"),
    ("electrical_engineering", "电气工程"),
    ("elementary_chinese", "小学语文"),
    ("elementary_commonsense", "小学常识"),
    ("elementary_information_and_technology", "小学信息技术"),
    ("elementary_mathematics", "初等数学"),
    ("ethnology", "民族学"),
    ("food_science", "食品科学"),
    ("genetics", "遗传学"),
    ("global_facts", "全球事实"),
    ("high_school_biology", "高中生物"),
    ("high_school_chemistry", "高中化学"),
    ("high_school_geography", "高中地理"),
    ("high_school_mathematics", "高中数学"),
    ("high_school_physics", "高中物理学"),
    ("high_school_politics", "高中政治"),
    ("human_sexuality", "人类性行为"),
    ("international_law", "国际法学"),
    ("journalism", "新闻学"),
    ("jurisprudence", "法理学"),
    ("legal_and_moral_basis", "法律与道德基础"),
    ("logical", "逻辑学"),
    ("machine_learning", "机器学习"),
    ("management", "管理学"),
    ("marketing", "市场营销"),
    ("marxist_theory", "马克思主义理论"),
    ("modern_chinese", "现代汉语"),
    ("nutrition", "营养学"),
    ("philosophy", "哲学"),
    ("professional_accounting", "专业会计"),
    ("professional_law", "专业法学"),
    ("professional_medicine", "专业医学"),
    ("professional_psychology", "专业心理学"),
    ("public_relations", "公共关系"),
    ("security_study", "安全研究"),
    ("sociology", "社会学"),
    ("sports_science", "体育学"),
    ("traditional_chinese_medicine", "中医中药"),
    ("virology", "病毒学"),
    ("world_history", "世界历史"),
    ("world_religions", "世界宗教"),
];

tasks![
    (
        "boolean_expressions",
        Pattern(r"\b(True|False)\b"),
        "Evaluate the result of a random Boolean expression."
    ),
    ("causal_judgement", Pattern(r"\b(Yes|No|yes|no)\b"), "Answer questions about causal attribution."),
    ("date_understanding", Letter, "Infer the date from context."),
    ("disambiguation_qa", Letter, "Clarify the meaning of sentences with ambiguous pronouns."),
    ("dyck_languages", Pattern(CLOSING), "Correctly close a Dyck-n word."),
    (
        "formal_fallacies",
        Pattern(r"\b(valid|invalid)\b"),
        "Distinguish deductively valid arguments from formal fallacies."
    ),
    ("geometric_shapes", Letter, "Name geometric shapes from their SVG paths."),
    ("hyperbaton", Letter, "Order adjectives correctly in English sentences."),
    (
        "logical_deduction_five_objects",
        Letter,
        "A logical deduction task which requires deducing the order of a sequence of objects."
    ),
    (
        "logical_deduction_seven_objects",
        Letter,
        "A logical deduction task which requires deducing the order of a sequence of objects."
    ),
    (
        "logical_deduction_three_objects",
        Letter,
        "A logical deduction task which requires deducing the order of a sequence of objects."
    ),
    ("movie_recommendation", Letter, "Recommend movies similar to the given list of movies."),
    ("multistep_arithmetic_two", Number, "Solve multi-step arithmetic problems."),
    (
        "navigate",
        Pattern(r"\b(Yes|No|yes|no)\b"),
        "Given a series of navigation instructions, determine whether one would end up back at the starting point."
    ),
    (
        "object_counting",
        Number,
        "Questions that involve enumerating objects and asking the model to count them."
    ),
    ("penguins_in_a_table", Letter, "Answer questions about a table of penguins and their attributes."),
    (
        "reasoning_about_colored_objects",
        Letter,
        "Answer extremely simple questions about the colors of objects on a surface."
    ),
    ("ruin_names", Letter, "Select the humorous edit that 'ruins' the input movie or musical artist name."),
    (
        "salient_translation_error_detection",
        Letter,
        "Detect the type of error in an English translation of a German source sentence."
    ),
    (
        "snarks",
        Letter,
        "Determine which of two sentences is sarcastic.\n\nAccording to Cambridge University Dictionary, sarcasm is \"the use of remarks that clearly mean the opposite of what they say, made in order to hurt someone's feelings or to criticize something in a humorous way.\" Sarcastic sentences often contain satirical or ironic utterances, hyperboles, ambivalent or witty remarks."
    ),
    (
        "sports_understanding",
        YesNo,
        "Determine whether an artificially constructed sentence relating to sports is plausible or not."
    ),
    (
        "temporal_sequences",
        Letter,
        "Task description: Answer questions about which times certain events could have occurred."
    ),
    (
        "tracking_shuffled_objects_five_objects",
        Letter,
        "A task requiring determining the final positions of a set of objects given their initial positions and a description of a sequence of swaps."
    ),
    (
        "tracking_shuffled_objects_seven_objects",
        Letter,
        "A task requiring determining the final positions of a set of objects given their initial positions and a description of a sequence of swaps."
    ),
    (
        "tracking_shuffled_objects_three_objects",
        Letter,
        "A task requiring determining the final positions of a set of objects given their initial positions and a description of a sequence of swaps."
    ),
    ("web_of_lies", YesNo, "Evaluate a random boolean function expressed as a word problem."),
    ("word_sorting", Words, "Sort a list of words."),
];

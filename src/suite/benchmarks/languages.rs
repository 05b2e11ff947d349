//! The words of the multilingual benchmarks in each language, and the names of these languages.
//!
//! Facts of the benchmarks' protocols, as lm-evaluation-harness 0.4.13 asks them: `lm_eval/tasks/{mgsm,xcopa,
//! xnli,xquad,belebele}`. Words that a native speaker would correct are kept, because figures are compared
//! under them.

use super::Part;

/// How MGSM asks: before a question that does not say so itself, and after it.
pub(super) struct MgsmWords {
    pub(super) question: &'static str,
    pub(super) answer: &'static str,
}

/// MGSM's words in a language.
pub(super) fn mgsm(language: &str) -> Option<MgsmWords> {
    let (question, answer) = match language {
        "bn" => ("প্রশ্ন:", "Answer:"),
        "de" => ("Frage:", "Antwort:"),
        "en" => ("Question:", "Answer:"),
        "es" => ("Pregunta:", "Respuesta:"),
        "fr" => ("Question :", "Réponse :"),
        "ja" => ("問題：", "Answer:"),
        "ru" => ("Задача:", "Answer:"),
        "sw" => ("Swali:", "Answer:"),
        "te" => ("ప్రశ్న:", "Answer:"),
        "th" => ("โจทย์:", "Answer:"),
        "zh" => ("问题：", "Answer:"),
        _ => return None,
    };
    Some(MgsmWords { question, answer })
}

/// How XCOPA joins a premise to its cause and to its effect.
pub(super) fn xcopa(language: &str) -> Option<(&'static str, &'static str)> {
    Some(match language {
        "et" => ("sest", "seetõttu"),
        "ht" => ("poukisa", "donk sa"),
        "id" => ("karena", "maka"),
        "it" => ("perché", "quindi"),
        "qu" => ("imataq", "chaymi"),
        "sw" => ("kwa sababu", "kwa hiyo"),
        "ta" => ("காரணமாக", "எனவே"),
        "th" => ("เพราะ", "ดังนั้น"),
        "tr" => ("çünkü", "bu yüzden"),
        "vi" => ("bởi vì", "vì vậy"),
        "zh" => ("因为", "所以"),
        _ => return None,
    })
}

/// XNLI's question word, and what stands for entailment, neutrality and contradiction.
pub(super) fn xnli(language: &str) -> Option<(&'static str, [&'static str; 3])> {
    Some(match language {
        "ar" => ("صحيح", ["نعم", "لذا", "رقم"]),
        "bg" => ("правилно", ["да", "така", "не"]),
        "de" => ("richtig", ["Ja", "Auch", "Nein"]),
        "el" => ("σωστός", ["Ναί", "Έτσι", "όχι"]),
        "en" => ("right", ["Yes", "Also", "No"]),
        "es" => ("correcto", ["Sí", "Asi que", "No"]),
        "fr" => ("correct", ["Oui", "Aussi", "Non"]),
        "hi" => ("सही", ["हाँ", "इसलिए", "नहीं"]),
        "ru" => ("правильно", ["Да", "Так", "Нет"]),
        "sw" => ("sahihi", ["Ndiyo", "Hivyo", "Hapana"]),
        "th" => ("ถูกต้อง", ["ใช่", "ดังนั้น", "ไม่"]),
        "tr" => ("doğru", ["Evet", "Böylece", "Hayır"]),
        "ur" => ("صحیح", ["جی ہاں", "اس لئے", "نہیں"]),
        "vi" => ("đúng", ["Vâng", "Vì vậy", "Không"]),
        "zh" => ("正确", ["是的", "所以", "不是的"]),
        _ => return None,
    })
}

/// XQuAD's words for context, question and answer.
pub(super) fn xquad(language: &str) -> Option<[&'static str; 3]> {
    Some(match language {
        "ar" => ["سيا", "سؤال", "إجابة"],
        "de" => ["Kontext", "Frage", "Antwort"],
        "el" => ["Συμφραζόμενα", "Ερώτηση", "Απάντηση"],
        "en" => ["Context", "Question", "Answer"],
        "es" => ["Contexto", "Pregunta", "Respuesta"],
        "hi" => ["प्रसंग", "सवाल", "उत्तर"],
        "ro" => ["Context", "Întrebare", "Răspuns"],
        "ru" => ["Контекст", "Вопрос", "Ответ"],
        "th" => ["บริบท", "คำถาม", "คำตอบ"],
        "tr" => ["Bağlam", "Soru", "Cevap"],
        "vi" => ["Bối cảnh", "Câu hỏi", "Trả lời"],
        "zh" => ["语境", "问题", "回答"],
        _ => return None,
    })
}

/// Languages whose name in the data is their BCP 47 tag.
macro_rules! tags {
    ($($tag:literal)*) => { &[$(Part { name: $tag, language: $tag }),*] };
}

/// Languages whose name in the data is another than their tag.
macro_rules! named {
    ($(($name:literal, $tag:literal)),* $(,)?) => { &[$(Part { name: $name, language: $tag }),*] };
}

pub(super) const MGSM: &[Part] = tags!["bn" "de" "en" "es" "fr" "ja" "ru" "sw" "te" "th" "zh"];
pub(super) const XCOPA: &[Part] = tags!["et" "ht" "id" "it" "qu" "sw" "ta" "th" "tr" "vi" "zh"];
pub(super) const XNLI: &[Part] =
    tags!["ar" "bg" "de" "el" "en" "es" "fr" "hi" "ru" "sw" "th" "tr" "ur" "vi" "zh"];
pub(super) const XQUAD: &[Part] = tags!["ar" "de" "el" "en" "es" "hi" "ro" "ru" "th" "tr" "vi" "zh"];

/// Belebele's 122 languages under their FLORES-200 codes. The tags are the shortest ones: a script is kept
/// only where the same language comes in two, and an individual language that ISO 639-1 knows under its
/// macrolanguage goes by that (`arb` is `ar`, `swh` is `sw`, `zsm` is `ms`).
pub(super) const BELEBELE: &[Part] = named![
    ("acm_Arab", "acm"),
    ("afr_Latn", "af"),
    ("als_Latn", "sq"),
    ("amh_Ethi", "am"),
    ("apc_Arab", "apc"),
    ("arb_Arab", "ar"),
    ("arb_Latn", "ar-Latn"),
    ("ars_Arab", "ars"),
    ("ary_Arab", "ary"),
    ("arz_Arab", "arz"),
    ("asm_Beng", "as"),
    ("azj_Latn", "az"),
    ("bam_Latn", "bm"),
    ("ben_Beng", "bn"),
    ("ben_Latn", "bn-Latn"),
    ("bod_Tibt", "bo"),
    ("bul_Cyrl", "bg"),
    ("cat_Latn", "ca"),
    ("ceb_Latn", "ceb"),
    ("ces_Latn", "cs"),
    ("ckb_Arab", "ckb"),
    ("dan_Latn", "da"),
    ("deu_Latn", "de"),
    ("ell_Grek", "el"),
    ("eng_Latn", "en"),
    ("est_Latn", "et"),
    ("eus_Latn", "eu"),
    ("fin_Latn", "fi"),
    ("fra_Latn", "fr"),
    ("fuv_Latn", "fuv"),
    ("gaz_Latn", "om"),
    ("grn_Latn", "gn"),
    ("guj_Gujr", "gu"),
    ("hat_Latn", "ht"),
    ("hau_Latn", "ha"),
    ("heb_Hebr", "he"),
    ("hin_Deva", "hi"),
    ("hin_Latn", "hi-Latn"),
    ("hrv_Latn", "hr"),
    ("hun_Latn", "hu"),
    ("hye_Armn", "hy"),
    ("ibo_Latn", "ig"),
    ("ilo_Latn", "ilo"),
    ("ind_Latn", "id"),
    ("isl_Latn", "is"),
    ("ita_Latn", "it"),
    ("jav_Latn", "jv"),
    ("jpn_Jpan", "ja"),
    ("kac_Latn", "kac"),
    ("kan_Knda", "kn"),
    ("kat_Geor", "ka"),
    ("kaz_Cyrl", "kk"),
    ("kea_Latn", "kea"),
    ("khk_Cyrl", "mn"),
    ("khm_Khmr", "km"),
    ("kin_Latn", "rw"),
    ("kir_Cyrl", "ky"),
    ("kor_Hang", "ko"),
    ("lao_Laoo", "lo"),
    ("lin_Latn", "ln"),
    ("lit_Latn", "lt"),
    ("lug_Latn", "lg"),
    ("luo_Latn", "luo"),
    ("lvs_Latn", "lv"),
    ("mal_Mlym", "ml"),
    ("mar_Deva", "mr"),
    ("mkd_Cyrl", "mk"),
    ("mlt_Latn", "mt"),
    ("mri_Latn", "mi"),
    ("mya_Mymr", "my"),
    ("nld_Latn", "nl"),
    ("nob_Latn", "nb"),
    ("npi_Deva", "ne"),
    ("npi_Latn", "ne-Latn"),
    ("nso_Latn", "nso"),
    ("nya_Latn", "ny"),
    ("ory_Orya", "or"),
    ("pan_Guru", "pa"),
    ("pbt_Arab", "ps"),
    ("pes_Arab", "fa"),
    ("plt_Latn", "mg"),
    ("pol_Latn", "pl"),
    ("por_Latn", "pt"),
    ("ron_Latn", "ro"),
    ("rus_Cyrl", "ru"),
    ("shn_Mymr", "shn"),
    ("sin_Latn", "si-Latn"),
    ("sin_Sinh", "si"),
    ("slk_Latn", "sk"),
    ("slv_Latn", "sl"),
    ("sna_Latn", "sn"),
    ("snd_Arab", "sd"),
    ("som_Latn", "so"),
    ("sot_Latn", "st"),
    ("spa_Latn", "es"),
    ("srp_Cyrl", "sr"),
    ("ssw_Latn", "ss"),
    ("sun_Latn", "su"),
    ("swe_Latn", "sv"),
    ("swh_Latn", "sw"),
    ("tam_Taml", "ta"),
    ("tel_Telu", "te"),
    ("tgk_Cyrl", "tg"),
    ("tgl_Latn", "tl"),
    ("tha_Thai", "th"),
    ("tir_Ethi", "ti"),
    ("tsn_Latn", "tn"),
    ("tso_Latn", "ts"),
    ("tur_Latn", "tr"),
    ("ukr_Cyrl", "uk"),
    ("urd_Arab", "ur"),
    ("urd_Latn", "ur-Latn"),
    ("uzn_Latn", "uz"),
    ("vie_Latn", "vi"),
    ("war_Latn", "war"),
    ("wol_Latn", "wo"),
    ("xho_Latn", "xh"),
    ("yor_Latn", "yo"),
    ("zho_Hans", "zh-Hans"),
    ("zho_Hant", "zh-Hant"),
    ("zsm_Latn", "ms"),
    ("zul_Latn", "zu"),
];

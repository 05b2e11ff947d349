//! The words that questions are made of.

/// First names, none longer than five letters.
pub(super) const NAMES: [&str; 24] = [
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Irene", "Jonas", "Kate", "Leo",
    "Maria", "Nina", "Oscar", "Paula", "Ralph", "Sara", "Tom", "Vera", "Will", "Yusuf", "Zoe", "Amir",
];

/// Common words of five letters, in alphabetical order.
pub(super) const FIVE_LETTERS: [&str; 96] = [
    "actor", "alarm", "angel", "apple", "arrow", "bacon", "badge", "beach", "berry", "blade", "board",
    "bread", "brick", "brush", "cabin", "camel", "candy", "cargo", "chain", "chalk", "cheek", "chess",
    "cliff", "clock", "cloud", "coral", "couch", "crane", "crown", "dairy", "dance", "depot", "diary",
    "dozen", "dream", "eagle", "earth", "elbow", "fairy", "fence", "flame", "flour", "fruit", "ghost",
    "giant", "glove", "grain", "grape", "guest", "heart", "honey", "horse", "hotel", "house", "jelly",
    "jewel", "juice", "knife", "label", "laser", "lemon", "maple", "medal", "melon", "metal", "money",
    "motor", "mouse", "nurse", "ocean", "olive", "onion", "paint", "panel", "paper", "pearl", "petal",
    "piano", "pilot", "plate", "queen", "radio", "raven", "robot", "salad", "scarf", "shark", "sheep",
    "spoon", "sugar", "table", "tiger", "train", "tulip", "wagon", "zebra",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_what_they_say() {
        assert!(FIVE_LETTERS.is_sorted_by(|a, b| a < b), "alphabetical, each once");
        assert!(FIVE_LETTERS.iter().all(|w| w.len() == 5 && w.bytes().all(|b| b.is_ascii_lowercase())));
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
        assert!(names.iter().all(|name| name.len() <= 5 && name.bytes().all(|b| b.is_ascii_alphabetic())));
    }
}

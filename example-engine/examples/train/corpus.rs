//! A small grammar of simple stories.

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;

/// Written before what the user says.
pub(crate) const USER: &str = "<|user|>";
/// Written before what the assistant says.
pub(crate) const ASSISTANT: &str = "<|assistant|>";
/// Written before what the system says.
pub(crate) const SYSTEM: &str = "<|system|>";

const NAMES: [&str; 16] = [
    "Mia", "Tom", "Lily", "Ben", "Anna", "Max", "Rosa", "Sam", "Ella", "Finn", "Nora", "Leo", "Ivy", "Jack", "Zoe",
    "Otto",
];
const ANIMALS: [&str; 14] = [
    "cat", "dog", "fox", "rabbit", "bear", "mouse", "owl", "duck", "hedgehog", "squirrel", "turtle", "frog", "horse",
    "goat",
];
const TRAITS: [&str; 12] =
    ["little", "brave", "shy", "clever", "kind", "curious", "sleepy", "cheerful", "quiet", "young", "old", "hungry"];
const PLACES: [&str; 12] = [
    "in a small house near the forest",
    "on a farm by the river",
    "in a village at the foot of a mountain",
    "in an old mill",
    "under a big oak tree",
    "by the sea",
    "in a garden full of flowers",
    "on a green hill",
    "near a quiet lake",
    "in a tall tower",
    "behind the bakery",
    "at the edge of the town",
];
const THINGS: [&str; 14] = [
    "red ball",
    "silver key",
    "blue kite",
    "warm scarf",
    "wooden boat",
    "golden bell",
    "round stone",
    "paper lantern",
    "green hat",
    "music box",
    "basket of apples",
    "little map",
    "pair of boots",
    "honey cake",
];
const SPOTS: [&str; 10] = [
    "under the bridge",
    "behind a rock",
    "in the tall grass",
    "on top of the hill",
    "at the bottom of the well",
    "inside a hollow tree",
    "beside the old wall",
    "near the water",
    "in the attic",
    "between two bushes",
];
const WEATHER: [&str; 8] = [
    "The sun was shining",
    "It was raining",
    "Snow was falling",
    "The wind was strong",
    "The sky was grey",
    "It was a warm day",
    "The air was cold",
    "A soft rain fell",
];
const FEELINGS: [&str; 6] = ["sad", "worried", "afraid", "angry", "tired", "lonely"];
const GOOD_FEELINGS: [&str; 6] = ["happy", "glad", "proud", "calm", "thankful", "full of joy"];
const LESSONS: [&str; 8] = [
    "it is good to share",
    "a friend is worth more than gold",
    "it is brave to ask for help",
    "small steps lead far",
    "kind words cost nothing",
    "the truth is always best",
    "waiting can be hard, but it is worth it",
    "everyone is good at something",
];

/// Writes stories, one after another, always the same for the same seed.
pub(crate) struct Storyteller {
    rng: Xoshiro256PlusPlus,
}

impl Storyteller {
    pub(crate) fn new(rng: Xoshiro256PlusPlus) -> Self {
        Self { rng }
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words.choose(&mut self.rng).expect("no list of words is empty")
    }

    /// A text as the model shall write it: a story alone, or a story that somebody asked for.
    pub(crate) fn document(&mut self) -> String {
        let (name, animal) = (self.pick(&NAMES), self.pick(&ANIMALS));
        let thing = self.pick(&THINGS);
        let story = self.story(name, animal, thing);
        if self.rng.random_bool(0.5) {
            return story;
        }
        let article = article(animal);
        let question = match self.rng.random_range(0..6) {
            0 => format!("Tell me a story about {article} {animal}."),
            1 => format!("Please tell me a story about {article} {animal} named {name}."),
            2 => format!("Write a short story about {name} and the {thing}."),
            3 => format!("Do you know a story about {article} {animal} and {} {thing}?", self::article(thing)),
            4 => "Tell me a story.".to_owned(),
            _ => "Hello! What can you tell me?".to_owned(),
        };
        let system = match self.rng.random_range(0..4) {
            0 => format!("{SYSTEM}You are a kind storyteller.\n"),
            _ => String::new(),
        };
        format!("{system}{USER}{question}\n{ASSISTANT}{story}")
    }

    fn story(&mut self, name: &str, animal: &str, thing: &str) -> String {
        let (friend_name, friend) = loop {
            let friend = (self.pick(&NAMES), self.pick(&ANIMALS));
            if friend.0 != name && friend.1 != animal {
                break friend;
            }
        };
        let (character, place, weather) = (self.pick(&TRAITS), self.pick(&PLACES), self.pick(&WEATHER));
        let opening = match self.rng.random_range(0..3) {
            0 => format!("Once upon a time there was {} {character} {animal} named {name}.", article(character)),
            1 => format!("{name} was {} {character} {animal}.", article(character)),
            _ => format!("There once lived {} {character} {animal} who was called {name}.", article(character)),
        };
        let home = format!("{name} lived {place}.");
        let morning = match self.rng.random_range(0..3) {
            0 => format!("One day {name} went for a walk. {weather}."),
            1 => format!("One morning {name} woke up early. {weather}."),
            _ => format!("{weather} when {name} opened the door."),
        };
        let middle = self.middle(name, thing, friend_name, friend);
        let feeling = self.pick(&GOOD_FEELINGS);
        let ending = match self.rng.random_range(0..4) {
            0 => format!("From that day on, {name} and {friend_name} were the best of friends."),
            1 => format!("{name} was {feeling} and slept well that night."),
            2 => format!("And so {name} learned that {}.", self.pick(&LESSONS)),
            _ => format!("In the evening they sat together and were {feeling}."),
        };
        format!("{opening} {home} {morning} {middle} {ending}")
    }

    fn middle(&mut self, name: &str, thing: &str, friend_name: &str, friend: &str) -> String {
        let (spot, feeling) = (self.pick(&SPOTS), self.pick(&FEELINGS));
        let good = self.pick(&GOOD_FEELINGS);
        let (a_friend, a_thing) = (format!("{} {friend}", article(friend)), format!("{} {thing}", article(thing)));
        match self.rng.random_range(0..5) {
            0 => format!(
                "{name} had lost the {thing} and was very {feeling}. \"Can you help me?\" {name} asked {a_friend} named \
                 {friend_name}. They looked everywhere. At last {friend_name} found the {thing} {spot}. \"Thank you!\" said {name}."
            ),
            1 => format!(
                "{name} found {a_thing} {spot}. \"Whose {thing} is this?\" {name} wondered. Then {a_friend} came by. The {friend}'s \
                 name was {friend_name}. \"That is my {thing},\" said {friend_name}. {name} gave it back, and {friend_name} was {good}."
            ),
            2 => format!(
                "{name} met {a_friend} named {friend_name}. {friend_name} was {feeling}. \"Why are you {feeling}?\" asked {name}. \"I \
                 have no one to play with,\" said {friend_name}. So they played with {name}'s {thing} all day long."
            ),
            3 => format!(
                "{name} wanted to build a house {spot}. It was hard work, and {name} was {feeling}. Then {friend_name} the {friend} \
                 brought {a_thing}. \"Let us work together,\" said {friend_name}. Soon the house was ready."
            ),
            _ => format!(
                "{name} heard a strange sound {spot}. {name} was {feeling}, but went to look. It was only {friend_name} the {friend}, \
                 who had dropped {a_thing}. They laughed, and {name} was {good}."
            ),
        }
    }
}

/// The article that goes before a word.
fn article(word: &str) -> &'static str {
    match word {
        word if word.starts_with(['a', 'e', 'i', 'o', 'u']) => "an",
        _ => "a",
    }
}

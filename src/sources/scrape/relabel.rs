//! Relabelling, in the words of Prometheus: `relabel_configs` of targets, `metric_relabel_configs` of what
//! they expose.
//!
//! ```yaml
//! - source_labels: [pod, __name__]      # their values, joined by separator (;)
//!   regex: 'web-.*;(http_.*)'           # has to match all of it; (.*) unless said
//!   action: replace                     # unless said; see below
//!   target_label: kind
//!   replacement: '$1'                   # unless said
//! ```
//!
//! | action | |
//! |---|---|
//! | `replace` | sets the target label where the expression matches; to nothing: takes it away |
//! | `keep`, `drop` | leaves out what does not match, what matches |
//! | `keepequal`, `dropequal` | leaves out what differs from, what equals the target label |
//! | `labelmap` | copies labels whose names match to the names that `replacement` makes of them |
//! | `labelkeep`, `labeldrop` | takes labels away whose names do not match, match |
//! | `lowercase`, `uppercase` | sets the target label to the source in small, in capital letters |
//! | `hashmod` | sets the target label to the MD5 of the source modulo `modulus`, to share targets out |

use crate::text::start_of;
use md5::{Digest, Md5};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use std::borrow::Cow;
use std::hash::{Hash, Hasher};

/// Most memory that one compiled expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// What matches everything.
const ANYTHING: &str = "(.*)";

/// An expression that has to match a whole text.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(&format!("^(?s:{text})$")).size_limit(REGEX_BYTES_MAX).build();
        let regex = built.map_err(|_| format!("{:?} is no regular expression", start_of(text)))?;
        Ok(Self { text: text.to_owned(), regex })
    }

    fn matches(&self, text: &str) -> bool {
        self.text == ANYTHING || self.regex.is_match(text)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Replace { target: String, replacement: String },
    Keep,
    Drop,
    KeepEqual { target: String },
    DropEqual { target: String },
    LabelMap { replacement: String },
    LabelKeep,
    LabelDrop,
    Lowercase { target: String },
    Uppercase { target: String },
    HashMod { target: String, modulus: u64 },
}

/// One rule.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Hash)]
#[serde(try_from = "Written")]
pub struct Rule {
    sources: Vec<String>,
    separator: String,
    pattern: Pattern,
    action: Action,
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    source_labels: Vec<String>,
    separator: Option<String>,
    regex: Option<String>,
    modulus: Option<u64>,
    target_label: Option<String>,
    replacement: Option<String>,
    action: Option<String>,
}

impl TryFrom<Written> for Rule {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let word = written.action.as_deref().unwrap_or("replace").to_lowercase();
        let unused = |name: &str, is_there: bool| {
            if is_there { Err(format!("{name} means nothing to the action {word:?}")) } else { Ok(()) }
        };
        let has_target =
            matches!(&*word, "replace" | "hashmod" | "lowercase" | "uppercase" | "keepequal" | "dropequal");
        let target = written.target_label.clone().filter(|target| !target.is_empty());
        if has_target && target.is_none() {
            return Err(format!("the action {word:?} needs a target_label"));
        }
        unused("target_label", !has_target && target.is_some())?;
        unused("modulus", word != "hashmod" && written.modulus.is_some())?;
        if matches!(&*word, "labelkeep" | "labeldrop" | "labelmap") {
            unused("source_labels", !written.source_labels.is_empty())?;
        }
        if matches!(&*word, "keepequal" | "dropequal") {
            unused("regex", written.regex.is_some())?;
        }
        let target = target.unwrap_or_default();
        let replacement = written.replacement.unwrap_or_else(|| "$1".to_owned());
        let action = match &*word {
            "replace" => Action::Replace { target, replacement },
            "keep" => Action::Keep,
            "drop" => Action::Drop,
            "keepequal" => Action::KeepEqual { target },
            "dropequal" => Action::DropEqual { target },
            "labelmap" => Action::LabelMap { replacement },
            "labelkeep" => Action::LabelKeep,
            "labeldrop" => Action::LabelDrop,
            "lowercase" => Action::Lowercase { target },
            "uppercase" => Action::Uppercase { target },
            "hashmod" => {
                let modulus = written.modulus.filter(|modulus| *modulus > 0);
                let modulus = modulus.ok_or("the action \"hashmod\" needs a modulus above 0")?;
                Action::HashMod { target, modulus }
            }
            _ => return Err(format!("{:?} is no action of relabelling", start_of(&word))),
        };
        Ok(Self {
            sources: written.source_labels,
            separator: written.separator.unwrap_or_else(|| ";".to_owned()),
            pattern: Pattern::new(written.regex.as_deref().unwrap_or(ANYTHING))?,
            action,
        })
    }
}

/// Labels that rules change. What they leave as it is is not copied.
pub struct LabelSet<'l> {
    pairs: Vec<(Cow<'l, str>, Cow<'l, str>)>,
    changed: bool,
}

impl<'l> LabelSet<'l> {
    /// Of these pairs, one a name.
    pub fn of(pairs: impl IntoIterator<Item = (&'l str, &'l str)>) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { pairs, changed: false }
    }

    /// The value of a label; empty: it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// Sets a label; an empty value takes it away.
    pub fn set(&mut self, name: &str, value: String) {
        if self.get(name) == value {
            return;
        }
        self.changed = true;
        match self.pairs.iter().position(|(n, _)| n == name) {
            Some(place) if value.is_empty() => drop(self.pairs.remove(place)),
            Some(place) => {
                if let Some((_, old)) = self.pairs.get_mut(place) {
                    *old = value.into();
                }
            }
            None => self.pairs.push((name.to_owned().into(), value.into())),
        }
    }

    fn retain(&mut self, mut keeps: impl FnMut(&str) -> bool) {
        let before = self.pairs.len();
        self.pairs.retain(|(name, _)| keeps(name));
        self.changed |= self.pairs.len() != before;
    }

    /// The labels, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether any rule changed it.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Applies the rules in their order; false: one of them leaves it out.
    pub fn relabel(&mut self, rules: &[Rule]) -> bool {
        rules.iter().all(|rule| self.apply(rule))
    }

    fn apply(&mut self, rule: &Rule) -> bool {
        let pattern = &rule.pattern;
        let source = |this: &Self| {
            let values: Vec<&str> = rule.sources.iter().map(|name| this.get(name)).collect();
            values.join(&rule.separator)
        };
        match &rule.action {
            Action::Keep => return pattern.matches(&source(self)),
            Action::Drop => return !pattern.matches(&source(self)),
            Action::KeepEqual { target } => return source(self) == self.get(target),
            Action::DropEqual { target } => return source(self) != self.get(target),
            Action::LabelKeep => self.retain(|name| pattern.matches(name)),
            Action::LabelDrop => self.retain(|name| !pattern.matches(name)),
            Action::Replace { target, replacement } => {
                self.replace(pattern, &source(self), target, replacement)
            }
            Action::LabelMap { replacement } => self.map_names(pattern, replacement),
            Action::Lowercase { target } => self.set(target, source(self).to_lowercase()),
            Action::Uppercase { target } => self.set(target, source(self).to_uppercase()),
            Action::HashMod { target, modulus } => {
                self.set(target, (hash(&source(self)) % modulus).to_string());
            }
        }
        true
    }

    fn replace(&mut self, pattern: &Pattern, source: &str, target: &str, replacement: &str) {
        let Some(found) = pattern.regex.captures(source) else { return };
        let expanded = |template: &str| {
            let mut text = String::new();
            found.expand(template, &mut text);
            text
        };
        let target = expanded(target);
        if !target.is_empty() {
            self.set(&target, expanded(replacement));
        }
    }

    fn map_names(&mut self, pattern: &Pattern, replacement: &str) {
        let mapped = |(name, value): (&str, &str)| {
            let mut new_name = String::new();
            pattern.regex.captures(name)?.expand(replacement, &mut new_name);
            Some((new_name, value.to_owned())).filter(|(name, _)| !name.is_empty())
        };
        let mapped: Vec<(String, String)> = self.iter().filter_map(mapped).collect();
        for (name, value) in mapped {
            self.set(&name, value);
        }
    }
}

/// The last eight bytes of the MD5, so that targets are shared out as Prometheus does it.
fn hash(text: &str) -> u64 {
    let digest: [u8; 16] = Md5::digest(text.as_bytes()).into();
    let [.., a, b, c, d, e, f, g, h] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(text: &str) -> Result<Vec<Rule>, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    /// The labels that are left, in words; `None`: left out.
    fn relabelled(text: &str) -> Option<String> {
        let mut set =
            LabelSet::of([("a", "Foo"), ("b", "bar"), ("c", "baz"), ("__name__", "m"), ("d", "Foo")]);
        let kept = set.relabel(&rules(text).expect(text));
        let mut pairs: Vec<String> = set.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.sort();
        kept.then(|| pairs.join(" "))
    }

    #[test]
    fn each_action_does_what_it_does_in_prometheus() {
        for (text, expected) in [
            (
                "- {source_labels: [a], regex: F(.*), target_label: e, replacement: x$1}",
                "__name__=m a=Foo b=bar c=baz d=Foo e=xoo",
            ),
            (
                "- {source_labels: [a, b], separator: '-', target_label: e}",
                "__name__=m a=Foo b=bar c=baz d=Foo e=Foo-bar",
            ),
            ("- {source_labels: [a], regex: oo, target_label: e}", "__name__=m a=Foo b=bar c=baz d=Foo"),
            ("- {target_label: a, replacement: ''}", "__name__=m b=bar c=baz d=Foo"),
            (
                "- {source_labels: [b], regex: (b)(ar), target_label: '${1}x', replacement: $2}",
                "__name__=m a=Foo b=bar bx=ar c=baz d=Foo",
            ),
            ("- {regex: '[a-c]', action: labeldrop}", "__name__=m d=Foo"),
            ("- {regex: '__name__|[a-c]', action: LabelKeep}", "__name__=m a=Foo b=bar c=baz"),
            (
                "- {regex: '([ab])', replacement: x_$1, action: labelmap}",
                "__name__=m a=Foo b=bar c=baz d=Foo x_a=Foo x_b=bar",
            ),
            (
                "- {source_labels: [a], target_label: e, action: lowercase}",
                "__name__=m a=Foo b=bar c=baz d=Foo e=foo",
            ),
            (
                "- {source_labels: [b], target_label: b, action: uppercase}",
                "__name__=m a=Foo b=BAR c=baz d=Foo",
            ),
            // Of Prometheus' own tests: the MD5 of "baz" modulo 1000.
            (
                "- {source_labels: [c], target_label: d, action: hashmod, modulus: 1000}",
                "__name__=m a=Foo b=bar c=baz d=976",
            ),
            ("- {source_labels: [a], regex: Fo+, action: keep}", "__name__=m a=Foo b=bar c=baz d=Foo"),
            (
                "- {source_labels: [a], target_label: d, action: keepequal}",
                "__name__=m a=Foo b=bar c=baz d=Foo",
            ),
            (
                "- {source_labels: [a], target_label: b, action: dropequal}",
                "__name__=m a=Foo b=bar c=baz d=Foo",
            ),
        ] {
            assert_eq!(relabelled(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "- {source_labels: [a], regex: Fo, action: keep}",
            "- {source_labels: [a], regex: F.*, action: drop}",
            "- {source_labels: [a], target_label: b, action: keepequal}",
            "- {source_labels: [a], target_label: d, action: dropequal}",
            "- {source_labels: [a], target_label: e}\n- {source_labels: [e], regex: Foo, action: drop}",
        ] {
            assert_eq!(relabelled(text), None, "{text}");
        }
    }

    #[test]
    fn rules_that_mean_nothing_are_refused_with_their_line() {
        for (text, why) in [
            ("- {action: keep}\n- {action: paint}", "is no action"),
            ("- {action: keep}\n- {regex: '('}", "needs a target_label"),
            ("- {action: keep}\n- {regex: '(', target_label: a}", "no regular expression"),
            ("- {action: keep}\n- {action: hashmod, target_label: a}", "modulus"),
            ("- {action: keep}\n- {action: labeldrop, source_labels: [a]}", "source_labels"),
            ("- {action: keep}\n- {action: keepequal, target_label: a, regex: b}", "regex"),
            ("- {action: keep}\n- {action: drop, target_label: a}", "target_label"),
            ("- {action: keep}\n- {action: keep, colour: red}", "colour"),
        ] {
            let error = rules(text).expect_err(text);
            assert!(error.contains(why) && error.contains("line 2"), "{text}: {error}");
        }
    }

    #[test]
    fn what_no_rule_touches_is_not_changed() {
        let mut set = LabelSet::of([("a", "1")]);
        let same =
            rules("- {source_labels: [a], target_label: a}\n- {regex: b, action: labeldrop}").expect("rules");
        assert!(set.relabel(&same) && !set.is_changed());
        assert!(
            set.relabel(&rules("- {target_label: a, replacement: x}").expect("rules")) && set.is_changed()
        );
    }

    proptest! {
        #[test]
        fn no_rule_panics(text in "[a-z_:$(){}\\[\\]*+.|;,'\n -]{0,60}", value in "\\PC{0,10}") {
            let _ = rules(&text);
            if let Ok(rules) = rules(&format!("- {{target_label: t, source_labels: [a], regex: {text:?}, replacement: {value:?}}}")) {
                let mut set = LabelSet::of([("a", &*value)]);
                prop_assert!(set.relabel(&rules));
            }
        }
    }
}

//! Queries of growing size over the whole language.
//!
//! A query is made of parts whose type fits. Parts whose values have been rounded (`Exact::No`: rates,
//! averages, quotients) go only into what a last bit does not turn over: no comparison, no rounding, no
//! ranking of them, because both servers are right where they round differently.
//!
//! Instants of queries lie at 137 ms of a second, ranges of subqueries end in 7 ms, and all else is whole
//! seconds, so that no window of Prometheus 2, closed on both sides, has a sample on its left edge.

use super::Random;
use super::data::{BASE_MS, SPAN_MS};

/// Whether values have to be free of rounding.
#[derive(Clone, Copy, PartialEq)]
enum Exact {
    Yes,
    No,
}

/// A query and its times: an instant, or a range with its end and step. Unix milliseconds.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) start_ms: i64,
    pub(crate) range: Option<(i64, i64)>,
    /// The order of the answer is asked for.
    pub(crate) ordered: bool,
}

impl Question {
    /// The `place`-th of a run; later ones are larger, up to a size and then from the beginning again.
    pub(crate) fn random(random: &mut Random, place: usize) -> Self {
        let depth = 1 + place % 5;
        let start_ms = BASE_MS + 137 + (600 + signed(random, (SPAN_MS / 1_000) as u64)) * 1_000;
        let range = random.chance(50).then(|| {
            let step_ms = 1_000 * *[15, 30, 37, 60, 300].get(signed(random, 5) as usize).expect("a step");
            (start_ms + step_ms * signed(random, 30), step_ms)
        });
        let mut maker = Maker { random };
        let ordered = range.is_none() && maker.random.chance(4);
        let text = match maker.random.below(100) {
            _ if ordered => maker.sorted(depth),
            0..6 => maker.scalar(depth, Exact::No),
            6..11 if range.is_none() => maker.range(depth, Exact::No),
            11 if range.is_none() => "\"a \\\"text\\\" of \\u00fc\"".to_owned(),
            _ => maker.vector(depth, Exact::No),
        };
        Self { text, start_ms, range, ordered }
    }
}

fn signed(random: &mut Random, end: u64) -> i64 {
    i64::try_from(random.below(end)).expect("small")
}

struct Maker<'r> {
    random: &'r mut Random,
}

impl Maker<'_> {
    fn pick(&mut self, all: &[&str]) -> String {
        self.random.pick(all).to_owned()
    }

    /// A number that keeps sums exact.
    fn number(&mut self) -> String {
        self.pick(&["0", "1", "2", "3", "0.5", "0.25", "-1", "-2.5", "10", "0x10", "1e2"])
    }

    fn duration(&mut self) -> String {
        self.pick(&["1m", "2m", "5m", "7m", "10m", "90s", "30s", "1m30s", "1h"])
    }

    fn matchers(&mut self) -> String {
        let mut all = Vec::new();
        for _ in 0..self.random.below(3) {
            all.push(self.pick(&[
                "job=\"api\"",
                "job!=\"api\"",
                "job=~\"web|nothing\"",
                "instance=~\"a|b\"",
                "instance!~\"c.*\"",
                "instance=~\"[a-b]+\"",
                "nothing=\"\"",
                "instance!=\"\"",
                "job=~\".+\"",
                "job=~\"(?i:API|wEB)\"",
            ]));
        }
        if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
    }

    /// An offset, an `@`, both or none.
    fn moment(&mut self) -> String {
        let seconds = BASE_MS / 1_000 + 600 + signed(self.random, 6_000);
        let at = match self.random.below(12) {
            0 => format!(" @ {seconds}.137"),
            1 => " @ start()".to_owned(),
            2 => " @ end()".to_owned(),
            _ => String::new(),
        };
        let offset = match self.random.below(8) {
            0 => format!(" offset {}", self.duration()),
            1 => " offset -3m".to_owned(),
            _ => String::new(),
        };
        if self.random.chance(50) { format!("{at}{offset}") } else { format!("{offset}{at}") }
    }

    fn named(&mut self, names: &[&str]) -> String {
        let name = self.pick(names);
        let matchers = self.matchers();
        if self.random.chance(6) {
            let and = if matchers.is_empty() { "}".to_owned() } else { format!(",{}", &matchers[1..]) };
            return format!("{{__name__=\"{name}\"{and}");
        }
        format!("{name}{matchers}")
    }

    fn gauge(&mut self) -> String {
        self.named(&[
            "temperature",
            "memory_bytes",
            "brief",
            "limit",
            "flat",
            "build_info",
            "wild",
            "absent_one",
        ])
    }

    /// A gauge no two series of which are equal, and none of which is NaN.
    fn ranked(&mut self) -> String {
        self.named(&["temperature", "memory_bytes", "brief"])
    }

    fn counter(&mut self) -> String {
        self.named(&["requests_total", "bytes_total", "latency_seconds_bucket", "latency_seconds_count"])
    }

    fn selector(&mut self) -> String {
        let name = if self.random.chance(70) { self.gauge() } else { self.counter() };
        name + &self.moment()
    }

    fn labels(&mut self) -> String {
        self.pick(&[
            "",
            "job",
            "instance",
            "job, instance",
            "pod",
            "job, nothing",
            "code",
            "le",
            "job, le",
            "__name__",
        ])
    }

    fn scalar(&mut self, depth: usize, exact: Exact) -> String {
        if depth == 0 {
            return self.number();
        }
        match self.random.below(8) {
            0 | 1 => format!("scalar({})", self.vector(depth - 1, exact)),
            2 => format!("(-{})", self.scalar(depth - 1, exact)),
            3 => {
                let op = self.pick(&["+", "-"]);
                format!("({} {op} {})", self.scalar(depth - 1, exact), self.scalar(depth - 1, exact))
            }
            4 => {
                let op = self.pick(&["==", "!=", ">", "<", ">=", "<="]);
                let (left, right) = (self.scalar(depth - 1, Exact::Yes), self.number());
                format!("({left} {op} bool {right})")
            }
            5 if exact == Exact::No => self.pick(&["time()", "pi()", "1.1", "-0.3", "Inf", "NaN"]),
            6 if exact == Exact::No => {
                let op = self.pick(&["*", "/", "^"]);
                format!("({} {op} {})", self.scalar(depth - 1, exact), self.scalar(depth - 1, exact))
            }
            _ => self.number(),
        }
    }

    /// Samples over time.
    fn range(&mut self, depth: usize, exact: Exact) -> String {
        if depth > 1 && self.random.chance(40) {
            let (inner, wide) = (self.vector(depth - 1, exact), self.pick(&["5m7ms", "10m7ms", "3m7ms"]));
            let step = self.pick(&["30s", "1m", "45s", ""]);
            // Prometheus 2 loses its way where an `@` stands within another.
            let moment = if inner.contains('@') { self.pick(&["", " offset 2m"]) } else { self.moment() };
            return format!("({inner})[{wide}:{step}]{moment}");
        }
        let name = if self.random.chance(70) { self.gauge() } else { self.counter() };
        format!("{name}[{}]{}", self.duration(), self.moment())
    }

    /// Samples of counters over time, by themselves or added up.
    fn counter_range(&mut self) -> String {
        let name = self.counter();
        if self.random.chance(15) {
            return format!("({name})[10m7ms:30s]{}", self.moment());
        }
        format!("{name}[{}]{}", self.duration(), self.moment())
    }

    fn vector(&mut self, depth: usize, exact: Exact) -> String {
        if depth == 0 {
            return self.selector();
        }
        match self.random.below(100) {
            0..10 => self.selector(),
            10..25 => self.aggregation(depth, exact),
            25..45 => self.over_time(depth, exact),
            45..60 => self.arithmetic(depth, exact),
            60..72 => self.matching(depth, exact),
            72..80 => self.sets(depth, exact),
            80..92 => self.function(depth, exact),
            92..96 => self.relabelled(depth, exact),
            _ if exact == Exact::No => self.histogram(depth),
            _ => self.selector(),
        }
    }

    fn grouped(&mut self, op: &str, argument: &str) -> String {
        let labels = self.labels();
        match self.random.below(4) {
            0 => format!("{op}({argument})"),
            1 => format!("{op} without ({labels}) ({argument})"),
            2 => format!("{op}({argument}) by ({labels})"),
            _ => format!("{op} by ({labels}) ({argument})"),
        }
    }

    fn aggregation(&mut self, depth: usize, exact: Exact) -> String {
        let count = self.pick(&["1", "2", "3", "5", "0"]);
        match self.random.below(10) {
            0..5 => {
                let (op, inner) =
                    (self.pick(&["sum", "min", "max", "count", "group"]), self.vector(depth - 1, exact));
                self.grouped(&op, &inner)
            }
            5 => {
                let op = self.pick(&["topk", "bottomk"]);
                let inner = format!("{count}, {}{}", self.ranked(), self.moment());
                self.grouped(&op, &inner)
            }
            6 => {
                let inner = self.vector(depth - 1, Exact::Yes);
                self.grouped("count_values", &format!("\"value\", {inner}"))
            }
            7 if exact == Exact::No => {
                let q = self.pick(&["0", "0.5", "0.9", "1", "-1", "2", "0.333"]);
                let inner = self.vector(depth - 1, Exact::No);
                self.grouped("quantile", &format!("{q}, {inner}"))
            }
            _ if exact == Exact::No => {
                let op = self.pick(&["avg", "avg", "stddev", "stdvar"]);
                // Deviations of infinite values are 0 or NaN, by version.
                let inner = match &*op {
                    "avg" => self.vector(depth - 1, Exact::Yes),
                    _ if depth > 1 => format!("max_over_time({}[{}])", self.ranked(), self.duration()),
                    _ => self.ranked() + &self.moment(),
                };
                self.grouped(&op, &inner)
            }
            _ => {
                let inner = self.vector(depth - 1, exact);
                self.grouped("sum", &inner)
            }
        }
    }

    fn over_time(&mut self, depth: usize, exact: Exact) -> String {
        let exactly =
            ["sum", "min", "max", "count", "last", "present"].map(|name| format!("{name}_over_time"));
        let exactly = exactly.iter().map(String::as_str).chain(["changes", "resets", "idelta"]);
        let exactly: Vec<&str> = exactly.collect();
        match self.random.below(10) {
            0..4 => {
                let function = self.pick(&exactly);
                // Whether a value changed is decided by its last bit.
                let exact = if matches!(&*function, "changes" | "resets") { Exact::Yes } else { exact };
                format!("{function}({})", self.range(depth, exact))
            }
            4..7 if exact == Exact::No => {
                let function = self.pick(&["rate", "increase", "irate"]);
                format!("{function}({})", self.counter_range())
            }
            7 if exact == Exact::No => {
                let function = self.pick(&["avg_over_time", "stddev_over_time", "stdvar_over_time"]);
                format!("{function}({})", self.range(depth, Exact::Yes))
            }
            8 if exact == Exact::No => {
                let function = self.pick(&["delta", "deriv"]);
                let range = format!("{}[{}]{}", self.ranked(), self.duration(), self.moment());
                format!("{function}({range})")
            }
            _ if exact == Exact::No => {
                if self.random.chance(50) {
                    let q = self.pick(&["0", "0.5", "0.95", "1", "0.1", "-0.5", "1.5"]);
                    format!("quantile_over_time({q}, {})", self.range(depth, Exact::Yes))
                } else {
                    let ahead = self.pick(&["0", "60", "3600", "-120"]);
                    format!("predict_linear({}[10m], {ahead})", self.ranked())
                }
            }
            _ => {
                let function = self.pick(&exactly);
                format!("{function}({})", self.range(depth, Exact::Yes))
            }
        }
    }

    fn arithmetic(&mut self, depth: usize, exact: Exact) -> String {
        let vector = self.vector(depth - 1, exact);
        match self.random.below(7) {
            0 => {
                let scalar = self.scalar(depth - 1, exact);
                let op = self.pick(&["+", "-"]);
                if self.random.chance(50) {
                    format!("({vector} {op} {scalar})")
                } else {
                    format!("({scalar} {op} {vector})")
                }
            }
            1 => format!("-({vector})"),
            2 => format!("({vector} * {})", self.pick(&["2", "0.5", "-1", "4"])),
            3 | 4 => {
                let (vector, number) = (self.vector(depth - 1, Exact::Yes), self.number());
                let op = self.pick(&["==", "!=", ">", "<", ">=", "<="]);
                let as_bool = self.pick(&["", "bool"]);
                if self.random.chance(70) {
                    format!("({vector} {op} {as_bool} {number})")
                } else {
                    format!("({number} {op} {as_bool} {vector})")
                }
            }
            5 if exact == Exact::No => {
                let (op, number) = (self.pick(&["/", "*", "^", "atan2"]), self.scalar(1, Exact::No));
                // Prometheus 2 keeps names through atan2.
                let vector = if op == "atan2" { format!("-({vector})") } else { vector };
                if self.random.chance(50) {
                    format!("({vector} {op} {number})")
                } else {
                    format!("({number} {op} {vector})")
                }
            }
            _ => {
                let vector = self.vector(depth - 1, Exact::Yes);
                format!("({vector} % {})", self.pick(&["7", "2.5", "-3", "0", "64"]))
            }
        }
    }

    fn matching(&mut self, depth: usize, exact: Exact) -> String {
        let op = match exact {
            Exact::Yes => self.pick(&["+", "-", "==", "!=", ">", "<=", "> bool", "== bool"]),
            Exact::No => self.pick(&["+", "-", "*", "/", "^"]),
        };
        // Comparisons of what is rounded would turn over.
        match self.random.below(6) {
            0 | 1 => {
                let by = self.pick(&["job", "instance", "job, instance", "instance, job, nothing"]);
                let functions = ["sum", "max", "min", "count"];
                let (left_op, right_op) = (self.pick(&functions), self.pick(&functions));
                let (left, right) = (self.vector(depth - 1, exact), self.vector(depth - 1, exact));
                let on = if self.random.chance(50) {
                    format!(" on ({by})")
                } else {
                    " ignoring (nothing)".to_owned()
                };
                format!("({left_op} by ({by}) ({left}) {op}{on} {right_op} by ({by}) ({right}))")
            }
            2 => {
                let include = self.pick(&["version", "", "version, nothing"]);
                let left = self.vector(depth - 1, exact);
                format!("({left} {op} on (job) group_left ({include}) build_info)")
            }
            3 => {
                let right = self.vector(depth - 1, exact);
                format!("(limit {op} on (job) group_right () {right})")
            }
            4 => format!(
                "({} {op} ignoring (pod) group_left () {})",
                self.ranked(),
                self.named(&["temperature", "flat"])
            ),
            _ => format!("({} {op} {})", self.vector(depth - 1, exact), self.vector(depth - 1, exact)),
        }
    }

    fn sets(&mut self, depth: usize, exact: Exact) -> String {
        let op = self.pick(&["and", "or", "unless"]);
        let on = self.pick(&["", " on (job)", " on (instance, job)", " ignoring (pod)", " on ()"]);
        format!("({} {op}{on} {})", self.vector(depth - 1, exact), self.vector(depth - 1, exact))
    }

    fn function(&mut self, depth: usize, exact: Exact) -> String {
        const EXACTLY: [&str; 6] = ["abs", "ceil", "floor", "round", "sgn", "absent"];
        const DATES: [&str; 8] = [
            "day_of_month",
            "day_of_week",
            "day_of_year",
            "days_in_month",
            "hour",
            "minute",
            "month",
            "year",
        ];
        const ROUNDED: [&str; 20] = [
            "exp", "ln", "log2", "log10", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
            "cosh", "tanh", "asinh", "acosh", "atanh", "deg", "rad", "abs",
        ];
        match self.random.below(10) {
            0 | 1 => {
                let (function, inner) = (self.pick(&EXACTLY), self.vector(depth - 1, Exact::Yes));
                format!("{function}({inner})")
            }
            2 => {
                let (inner, to) =
                    (self.vector(depth - 1, Exact::Yes), self.pick(&["0.5", "5", "0.25", "-2"]));
                format!("round({inner}, {to})")
            }
            3 => {
                let inner = self.vector(depth - 1, exact);
                let (function, bound) = (self.pick(&["clamp_min", "clamp_max"]), self.scalar(1, exact));
                format!("{function}({inner}, {bound})")
            }
            4 => format!("clamp({}, {}, {})", self.vector(depth - 1, exact), self.number(), self.number()),
            5 => format!("vector({})", self.scalar(depth - 1, exact)),
            6 => format!("absent_over_time({})", self.range(depth, exact)),
            7 if exact == Exact::No => {
                let at = self.pick(&["", " @ end()"]);
                let offset = self.pick(&["", " offset 3m", " offset -90s", " offset 10m"]);
                format!("timestamp({}{at}{offset})", self.gauge())
            }
            8 => {
                // Not of NaN or Inf: what date those are depends on the machine.
                let function = self.pick(&DATES);
                let times = ["vector(time())", "timestamp(flat)", "flat * 1e7", "-brief * 1e6", ""];
                format!("{function}({})", self.pick(&times))
            }

            _ if exact == Exact::No => {
                // Of moderate values: at the ends of f64 a last bit decides on Inf.
                format!("{}({} / 100)", self.pick(&ROUNDED), self.ranked())
            }
            _ => format!("abs({})", self.vector(depth - 1, exact)),
        }
    }

    fn relabelled(&mut self, depth: usize, exact: Exact) -> String {
        let inner = self.vector(depth - 1, exact);
        match self.random.below(3) {
            0 => {
                let rest = self.pick(&[
                    "\"to\", \"$1-x\", \"instance\", \"(a|b)\"",
                    "\"to\", \"${job}\", \"job\", \"(?P<job>.*)\"",
                    "\"job\", \"\", \"job\", \"web\"",
                    "\"__name__\", \"other\", \"job\", \"api\"",
                    "\"to\", \"$2\", \"instance\", \"(.)\"",
                    "\"instance\", \"same\", \"nothing\", \"\"",
                ]);
                format!("label_replace({inner}, {rest})")
            }
            1 => format!("label_join({inner}, \"to\", \"-\", \"job\", \"instance\", \"nothing\")"),
            _ => format!("label_join({inner}, \"instance\", \"\", \"pod\")"),
        }
    }

    fn histogram(&mut self, depth: usize) -> String {
        let q = self.pick(&["0", "0.5", "0.9", "0.99", "1", "-1", "2", "scalar(flat)"]);
        let range =
            format!("latency_seconds_bucket{}[{}]{}", self.matchers(), self.duration(), self.moment());
        let inner = match self.random.below(4) {
            0 => format!("rate({range})"),
            1 => format!("sum by (le) (rate({range}))"),
            2 => format!("sum by (job, le) (increase({range}))"),
            _ => format!("latency_seconds_bucket{}", self.matchers()),
        };
        let quantile = format!("histogram_quantile({q}, {inner})");
        if depth > 2 && self.random.chance(30) {
            format!("max_over_time(({quantile})[5m7ms:1m])")
        } else {
            quantile
        }
    }

    fn sorted(&mut self, depth: usize) -> String {
        let function = self.pick(&["sort", "sort_desc"]);
        // Of values that differ: the order of equal ones is nobody's promise.
        let inner = if depth > 2 { format!("max_over_time({}[5m])", self.ranked()) } else { self.ranked() };
        format!("{function}({inner})")
    }
}

//! `filter`: an expression over a message that says whether a route takes it.
//!
//! The language is CEL (the Common Expression Language): it has no loops but those over what a message holds, and
//! nothing that changes or asks for anything, so that the same message always gets the same answer. What is left to
//! bound is how much work a message can make of it; that is judged here, before the first message comes.
//!
//! Invariant: an [`Expression`] has few nodes, is nested a little, and takes time and memory in proportion to the
//! message; within a loop, to the message for each of at most [`LOOPED_VALUES_MAX`] values.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::thread;

use cel::common::ast::operators::{ADD, CONDITIONAL, IN, INDEX};
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr};
use cel::{Context, Env, IdedExpr};

use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::values;

/// Every name that an expression can use.
pub const FILTER_VARIABLES: [&str; 13] = [
    "topic",
    "levels",
    "captures",
    "client_id",
    "user_name",
    "qos",
    "retain",
    "properties",
    "content_type",
    "payload",
    "payload_text",
    "payload_size",
    "published_at_ms",
];

/// Values that a message may have (of its payload and its user properties) for an expression with a loop.
pub const LOOPED_VALUES_MAX: usize = 4096;

/// What type(x) can be compared with.
const TYPES: [&str; 9] = ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type"];
const SOURCE_LEN_MAX: usize = 4096;
const NODES_MAX: usize = 256;
/// Levels of nodes, each of which is a call on the stack.
const DEPTH_MAX: usize = 32;
/// A loop within a loop.
const LOOPS_MAX: usize = 2;
/// The parser calls itself a dozen times for each bracket.
const PARSER_STACK: usize = 64 << 20;
const PAYLOAD_MAX: RangeInclusive<u64> = 1..=16 << 20;
const ON_ERROR: [(&str, OnFilterError); 3] = [
    ("dead_letter", OnFilterError::DeadLetter),
    ("drop", OnFilterError::Drop),
    ("pass", OnFilterError::Pass),
];

/// Which of the messages that match its topics a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterConfig {
    /// True for those.
    pub expression: Expression,
    /// What becomes of a message that it has no answer for.
    pub on_error: OnFilterError,
    /// A larger payload is not looked at, which is an error when the expression asks for it. In bytes.
    pub payload_max: u64,
}

/// What becomes of a message that a filter has no answer for. It is never tried again: the answer would be the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFilterError {
    /// It becomes a dead letter, for somebody to look at.
    #[default]
    DeadLetter,
    /// The route does not take it.
    Drop,
    /// The route takes it.
    Pass,
}

/// An expression that was compiled and found to be bounded. Cloning counts a reference; two are equal when their
/// text is.
#[derive(Clone)]
pub struct Expression(Arc<Compiled>);

struct Compiled {
    source: String,
    root: IdedExpr,
    has_loops: bool,
    uses_payload: bool,
}

/// The functions that there are: those of the language, without optional values.
static FUNCTIONS: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

impl FilterConfig {
    /// Reads the three keys; `None` without a filter.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let expression = section.take("filter", |value| {
            let text = value.as_str().ok_or_else(|| values::unexpected("an expression in quotes", value))?;
            if text.trim().is_empty() {
                return Err(Wrong::new("is empty").help("leave it out, and every message is taken"));
            }
            Expression::compile(text)
        });
        let on_error = section.choice("filter_error", &ON_ERROR).unwrap_or_default();
        let payload_max = section.bytes("filter_payload_max", PAYLOAD_MAX, Self::PAYLOAD_MAX);
        Some(Self { expression: expression?.into_inner(), on_error, payload_max })
    }

    const PAYLOAD_MAX: u64 = 64 << 10;

    /// This expression with every default.
    ///
    /// # Errors
    /// Why it is none, or could take too long.
    pub fn of(expression: &str) -> Result<Self, String> {
        let expression = Expression::compile(expression).map_err(|wrong| wrong.message)?;
        Ok(Self { expression, on_error: OnFilterError::default(), payload_max: Self::PAYLOAD_MAX })
    }
}

impl Expression {
    /// The message of the error continues the name of the key.
    pub(super) fn compile(source: &str) -> Result<Self, Wrong> {
        if source.len() > SOURCE_LEN_MAX {
            return Err(Wrong::new(format!("is longer than {SOURCE_LEN_MAX} bytes")));
        }
        let root = parse(source)?;
        let mut judge = Judge::default();
        judge.walk(&root, 0, &mut Vec::new())?;
        let Judge { has_loops, uses_payload, .. } = judge;
        Ok(Self(Arc::new(Compiled { source: source.to_owned(), root, has_loops, uses_payload })))
    }

    /// The functions that an expression can call, for the one who evaluates it.
    pub fn functions() -> Arc<Env> {
        Arc::clone(&FUNCTIONS)
    }

    /// As it is in the configuration.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// What is evaluated.
    pub fn root(&self) -> &IdedExpr {
        &self.0.root
    }

    /// Whether it goes over lists or maps of the message, which must have few values then.
    pub fn has_loops(&self) -> bool {
        self.0.has_loops
    }

    /// Whether it asks for the payload, as JSON or as text.
    pub fn uses_payload(&self) -> bool {
        self.0.uses_payload
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source()).finish()
    }
}

/// On a stack of its own: what an expression is nested in cannot be judged before it is parsed.
fn parse(source: &str) -> Result<IdedExpr, Wrong> {
    let text = source.to_owned();
    let parser = thread::Builder::new().name("filter-parser".into()).stack_size(PARSER_STACK);
    let parsed = parser.spawn(move || {
        let parsed = Env::stdlib().with_optional_support(false).parser().parse(&text);
        parsed.map_err(|errors| {
            let first = errors.errors.into_iter().next();
            first.map_or_else(|| "it has no meaning".to_owned(), |error| located(error.pos, &error.msg))
        })
    });
    let parsed = parsed.map_err(|error| Wrong::new(format!("cannot be read now: {error}")))?.join();
    let help =
        "write a condition in CEL, such as payload.temperature > 30.0 && client_id.startsWith(\"pump\")";
    match parsed {
        Ok(Ok(root)) => Ok(root),
        Ok(Err(why)) => Err(Wrong::new(format!("is not an expression: {why}")).help(help)),
        Err(_) => Err(Wrong::new("is not an expression that the parser can read").help(help)),
    }
}

/// The first line of what the parser says, and where.
fn located((line, column): (isize, isize), message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    match line {
        0 | 1 => format!("{message}, at its character {column}"),
        line => format!("{message}, at line {line} of it, character {column}"),
    }
}

/// What was found so far in an expression.
#[derive(Default)]
struct Judge {
    nodes: usize,
    has_loops: bool,
    uses_payload: bool,
}

/// The names that a loop adds to those of a message.
type Names<'e> = [&'e str; 3];

impl Judge {
    /// `loops` are those around this node, the innermost last.
    fn walk<'e>(
        &mut self,
        node: &'e IdedExpr,
        depth: usize,
        loops: &mut Vec<Names<'e>>,
    ) -> Result<(), Wrong> {
        self.nodes += 1;
        if self.nodes > NODES_MAX || depth > DEPTH_MAX {
            return Err(Wrong::new("is too large").help("split it over several routes, or make it simpler"));
        }
        let depth = depth + 1;
        match &node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.check_name(name, loops),
            Expr::Select(select) => self.walk(&select.operand, depth, loops),
            Expr::Call(call) => {
                check_function(call)?;
                check_order(call)?;
                let parts = call.target.iter().map(|target| &**target).chain(&call.args);
                parts.into_iter().try_for_each(|part| self.walk(part, depth, loops))
            }
            Expr::List(list) => {
                let mut elements = list.elements.iter();
                elements.try_for_each(|part| no_list(part).and_then(|()| self.walk(part, depth, loops)))
            }
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.walk(&entry.key, depth, loops)?;
                    self.walk(&entry.value, depth, loops)
                }
                EntryExpr::StructField(_) => Err(no_types()),
            }),
            Expr::Comprehension(comprehension) => self.walk_loop(comprehension, depth, loops),
            Expr::Struct(_) | Expr::Unspecified => Err(no_types()),
        }
    }

    fn walk_loop<'e>(
        &mut self,
        comprehension: &'e ComprehensionExpr,
        depth: usize,
        loops: &mut Vec<Names<'e>>,
    ) -> Result<(), Wrong> {
        let ComprehensionExpr { iter_range, iter_var, iter_var2, accu_var, .. } = comprehension;
        self.has_loops = true;
        check_loop(comprehension, loops)?;
        self.walk(iter_range, depth, loops)?;
        loops.push([iter_var, iter_var2.as_deref().unwrap_or(iter_var), accu_var]);
        let ComprehensionExpr { accu_init, loop_cond, loop_step, result, .. } = comprehension;
        let inside = [accu_init, loop_cond, loop_step, result];
        let walked = inside.into_iter().try_for_each(|part| self.walk(part, depth, loops));
        loops.pop();
        walked
    }

    fn check_name(&mut self, name: &str, loops: &[Names<'_>]) -> Result<(), Wrong> {
        if is_of_a_loop(name, loops) {
            return Ok(());
        }
        self.uses_payload |= matches!(name, "payload" | "payload_text");
        if FILTER_VARIABLES.contains(&name) || TYPES.contains(&name) {
            return Ok(());
        }
        let wrong = Wrong::new(format!("uses \"{}\", which a message does not have", name.escape_debug()));
        Err(wrong.help(match values::nearest(name, FILTER_VARIABLES.into_iter()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("there are: {}", FILTER_VARIABLES.join(", ")),
        }))
    }
}

fn is_of_a_loop(name: &str, loops: &[Names<'_>]) -> bool {
    loops.iter().flatten().any(|known| *known == name)
}

/// A loop makes as many steps as its list has elements. One within another goes over a part of the other's element,
/// so that all of them together make no more steps than the message has values.
fn check_loop(comprehension: &ComprehensionExpr, loops: &[Names<'_>]) -> Result<(), Wrong> {
    if loops.len() >= LOOPS_MAX {
        return Err(Wrong::new(format!("has more than {LOOPS_MAX} loops within one another")));
    }
    let root = root_of(&comprehension.iter_range);
    if !loops.is_empty() && !root.is_some_and(|name| is_of_a_loop(name, loops)) {
        let wrong =
            Wrong::new("has a loop in a loop that does not go over a part of the outer one's element");
        let help = "payload.a.exists(x, x.b.exists(y, ...)) can be, payload.a.exists(x, payload.b.exists(y, ...)) cannot";
        return Err(wrong.help(help));
    }
    if builds_list(comprehension) {
        let wrong = Wrong::new("uses map(), whose result can be much larger than the message");
        return Err(wrong.help("use exists() or all(): payload.a.exists(x, x.b == 1)"));
    }
    Ok(())
}

/// The elements of a map come in any order, and so does what filter() leaves of them: only what does not depend on
/// their order is the same for the same message.
fn check_order(call: &CallExpr) -> Result<(), Wrong> {
    match call.func_name.as_str() {
        "size" | IN => Ok(()),
        _ => call.target.iter().map(|target| &**target).chain(&call.args).try_for_each(no_list),
    }
}

fn no_list(node: &IdedExpr) -> Result<(), Wrong> {
    match &node.expr {
        Expr::Comprehension(comprehension) if matches!(comprehension.accu_init.expr, Expr::List(_)) => {
            let wrong = Wrong::new("uses the list that filter() makes, whose order is not always the same");
            Err(wrong.help("ask for its size(), for exists() or all() of it, or whether something is in it"))
        }
        _ => Ok(()),
    }
}

/// What the path `a.b[0].c` begins with.
fn root_of(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Ident(name) => Some(name),
        Expr::Select(select) => root_of(&select.operand),
        Expr::Call(call) if call.func_name == INDEX => root_of(call.args.first()?),
        _ => None,
    }
}

/// Whether a loop makes a list of anything but the elements it goes over, as `filter()` does.
fn builds_list(comprehension: &ComprehensionExpr) -> bool {
    let starts_with_list = matches!(&comprehension.accu_init.expr, Expr::List(_));
    starts_with_list && !appends_element(&comprehension.loop_step, &comprehension.iter_var)
}

/// Whether the only list in a step is `[element]`.
fn appends_element(step: &IdedExpr, element: &str) -> bool {
    let Expr::Call(call) = &step.expr else { return false };
    match (call.func_name.as_str(), call.args.as_slice()) {
        (CONDITIONAL, [_, step, _]) => appends_element(step, element),
        (ADD, [_, appended]) => match &appended.expr {
            Expr::List(list) => match list.elements.as_slice() {
                [only] => matches!(&only.expr, Expr::Ident(name) if name == element),
                _ => false,
            },
            _ => false,
        },
        _ => false,
    }
}

/// That of an operator is known to the parser.
fn check_function(call: &CallExpr) -> Result<(), Wrong> {
    let name = call.func_name.as_str();
    let is_operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
    // Only a function that is there already is refused.
    if is_operator || Context::with_env(Expression::functions()).add_function(name, || true).is_err() {
        return Ok(());
    }
    let wrong = Wrong::new(format!("calls {}(), which there is not", name.escape_debug()));
    Err(wrong.help("there are size, contains, startsWith, endsWith, has, exists, all, exists_one, filter, int, double, string, ..."))
}

fn no_types() -> Wrong {
    Wrong::new("makes a value of a type that there is not")
}

//! Evaluates JMESPath within a budget of steps and bytes.
//!
//! The interpreter of jpx-core has no budget, and what an expression costs depends on the secret: a `map` within
//! a projection copies its expression for each element. This one evaluates the same syntax tree and calls the same
//! functions, and counts each evaluated node and each copied value.

use std::borrow::Cow;
use std::cmp::Ordering;

use jpx_core::ast::{Ast, Comparator};
use jpx_core::{Context, ErrorReason, Runtime, RuntimeError, ValueExt};
use serde_json::{Map, Value};

/// Most steps of one evaluation: evaluated nodes, elements, and values read by a function.
const MAX_STEPS: usize = 200_000;
/// Most bytes of values that one evaluation may create.
const MAX_BYTES: usize = 8 << 20;
/// Deepest nesting of evaluated nodes: keeps the evaluation far from the end of a thread's stack.
const MAX_DEPTH: usize = 128;
/// Estimated memory of a parsed JSON value in addition to its text, in bytes.
const VALUE_OVERHEAD: usize = 64;

/// Why an evaluation stopped; contains no part of the secret.
pub(super) type Reason = &'static str;

const OVER_BUDGET: Reason =
    "it takes too many steps or too much memory on this secret: split it into several items";
const USED_UP: Reason = "the expressions of this volume take too many steps: use fewer, or several \
                         SecretProviderClasses";
const WRONG_TYPE: Reason = "a function received a value of the wrong type";
const WRONG_COUNT: Reason = "a function has the wrong number of arguments";
const UNKNOWN_FUNCTION: Reason = "it calls an unknown function";
const FAILED: Reason = "it fails on this value";
pub(super) const TOO_LARGE: Reason = "the result of a function is too large";
pub(super) const OUT_OF_RANGE: Reason = "a number is too large to compute with";

static NULL: Value = Value::Null;

/// The steps that the expressions of one volume may take together.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationSteps(usize);

impl Default for EvaluationSteps {
    fn default() -> Self {
        Self(5 * MAX_STEPS)
    }
}

/// About how much memory a parsed JSON value takes, in bytes.
pub(super) fn size_of(json: &Value) -> usize {
    VALUE_OVERHEAD
        + match json {
            Value::Null | Value::Bool(_) => 0,
            Value::Number(number) => number.as_str().len(),
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size_of).sum(),
            Value::Object(keys) => keys
                .iter()
                .map(|(key, value)| key.len() + size_of(value))
                .sum(),
        }
}

/// Evaluates `ast` on `data`.
pub(super) fn evaluate(
    runtime: &Runtime,
    ast: &Ast,
    data: &Value,
    steps: &mut EvaluationSteps,
) -> Result<Value, Reason> {
    let available = steps.0.min(MAX_STEPS);
    let mut evaluation = Evaluation {
        runtime,
        steps: available,
        bytes: MAX_BYTES,
        depth: 0,
    };
    let result = evaluation
        .eval(data, ast)
        .and_then(|result| evaluation.owned(result));
    steps.0 -= available - evaluation.steps;
    match result {
        Err(OVER_BUDGET) if steps.0 == 0 => Err(USED_UP),
        result => result,
    }
}

/// A result: borrowed from the secret or the expression where possible.
type Evaluated<'a> = Result<Cow<'a, Value>, Reason>;

struct Evaluation<'r> {
    runtime: &'r Runtime,
    /// Steps that are left.
    steps: usize,
    /// Bytes that are left.
    bytes: usize,
    depth: usize,
}

impl Evaluation<'_> {
    fn take_steps(&mut self, count: usize) -> Result<(), Reason> {
        let left = self.steps.checked_sub(count);
        self.steps = left.unwrap_or(0);
        left.map(drop).ok_or(OVER_BUDGET)
    }

    fn take_bytes(&mut self, count: usize) -> Result<(), Reason> {
        let left = self.bytes.checked_sub(count);
        self.bytes = left.unwrap_or(0);
        left.map(drop).ok_or(OVER_BUDGET)
    }

    /// A copy of a value, which counts.
    fn copy(&mut self, value: &Value) -> Result<Value, Reason> {
        self.take_bytes(size_of(value))?;
        Ok(value.clone())
    }

    fn owned(&mut self, value: Cow<'_, Value>) -> Result<Value, Reason> {
        match value {
            Cow::Borrowed(value) => self.copy(value),
            Cow::Owned(value) => Ok(value),
        }
    }

    /// An array of values that have been counted.
    fn array<'a>(&mut self, items: Vec<Value>) -> Evaluated<'a> {
        self.take_bytes(VALUE_OVERHEAD)?;
        Ok(Cow::Owned(Value::Array(items)))
    }

    fn eval<'a>(&mut self, data: &'a Value, ast: &'a Ast) -> Evaluated<'a> {
        self.take_steps(1)?;
        if self.depth >= MAX_DEPTH {
            return Err(FAILED);
        }
        self.depth += 1;
        let result = self.node(data, ast);
        self.depth -= 1;
        result
    }

    fn node<'a>(&mut self, data: &'a Value, ast: &'a Ast) -> Evaluated<'a> {
        match ast {
            Ast::Identity { .. } => Ok(Cow::Borrowed(data)),
            Ast::Field { name, .. } => Ok(Cow::Borrowed(data.get(name).unwrap_or(&NULL))),
            Ast::Literal { value, .. } => Ok(Cow::Borrowed(value)),
            Ast::Index { idx, .. } => Ok(Cow::Borrowed(index(data, *idx))),
            Ast::Subexpr { lhs, rhs, .. } => match self.eval(data, lhs)? {
                Cow::Borrowed(left) => self.eval(left, rhs),
                Cow::Owned(left) => {
                    let result = self.eval(&left, rhs)?;
                    self.owned(result).map(Cow::Owned)
                }
            },
            Ast::Or { lhs, rhs, .. } => match self.eval(data, lhs)? {
                left if left.is_truthy() => Ok(left),
                _ => self.eval(data, rhs),
            },
            Ast::And { lhs, rhs, .. } => match self.eval(data, lhs)? {
                left if left.is_truthy() => self.eval(data, rhs),
                left => Ok(left),
            },
            Ast::Not { node, .. } => {
                let truthy = self.eval(data, node)?.is_truthy();
                Ok(Cow::Owned(Value::Bool(!truthy)))
            }
            Ast::Condition {
                predicate, then, ..
            } => {
                if self.eval(data, predicate)?.is_truthy() {
                    self.eval(data, then)
                } else {
                    Ok(Cow::Borrowed(&NULL))
                }
            }
            Ast::Comparison {
                comparator,
                lhs,
                rhs,
                ..
            } => {
                let left = self.eval(data, lhs)?;
                let right = self.eval(data, rhs)?;
                let result = left.compare(comparator, &right);
                Ok(Cow::Owned(result.map_or(Value::Null, Value::Bool)))
            }
            Ast::ObjectValues { node, .. } => self.object_values(data, node),
            Ast::Projection { lhs, rhs, .. } => self.projection(data, lhs, rhs),
            Ast::Flatten { node, .. } => self.flatten(data, node),
            Ast::Slice {
                start, stop, step, ..
            } => self.slice(data, *start, *stop, *step),
            Ast::MultiList { elements, .. } => self.multi_list(data, elements),
            Ast::MultiHash { elements, .. } => {
                if data.is_null() {
                    return Ok(Cow::Borrowed(&NULL));
                }
                self.take_bytes(VALUE_OVERHEAD)?;
                let mut object = Map::new();
                for pair in elements {
                    let value = self.eval(data, &pair.value)?;
                    let value = self.owned(value)?;
                    self.take_bytes(VALUE_OVERHEAD + pair.key.len())?;
                    object.insert(pair.key.clone(), value);
                }
                Ok(Cow::Owned(Value::Object(object)))
            }
            Ast::Function { name, args, .. } => self.function(data, name, args),
            // Only the functions that take one evaluate it.
            Ast::Expref { .. } => Err(WRONG_TYPE),
        }
    }

    fn object_values<'a>(&mut self, data: &'a Value, node: &'a Ast) -> Evaluated<'a> {
        let object = self.eval(data, node)?;
        let Some(keys) = object.as_object() else {
            return Ok(Cow::Borrowed(&NULL));
        };
        let mut items = Vec::with_capacity(keys.len());
        for value in keys.values() {
            items.push(self.copy(value)?);
        }
        self.array(items)
    }

    fn projection<'a>(&mut self, data: &'a Value, lhs: &'a Ast, rhs: &'a Ast) -> Evaluated<'a> {
        let list = self.eval(data, lhs)?;
        let Some(list) = list.as_array() else {
            return Ok(Cow::Borrowed(&NULL));
        };
        let mut items = Vec::new();
        for element in list {
            let value = self.eval(element, rhs)?;
            if !value.is_null() {
                items.push(self.owned(value)?);
            }
        }
        self.array(items)
    }

    fn flatten<'a>(&mut self, data: &'a Value, node: &'a Ast) -> Evaluated<'a> {
        let list = self.eval(data, node)?;
        let Some(list) = list.as_array() else {
            return Ok(Cow::Borrowed(&NULL));
        };
        self.take_steps(list.len())?;
        let mut items = Vec::new();
        for element in list {
            match element {
                Value::Array(inner) => {
                    for element in inner {
                        items.push(self.copy(element)?);
                    }
                }
                other => items.push(self.copy(other)?),
            }
        }
        self.array(items)
    }

    fn multi_list<'a>(&mut self, data: &'a Value, elements: &'a [Ast]) -> Evaluated<'a> {
        if data.is_null() {
            return Ok(Cow::Borrowed(&NULL));
        }
        let mut items = Vec::with_capacity(elements.len());
        for element in elements {
            let value = self.eval(data, element)?;
            items.push(self.owned(value)?);
        }
        self.array(items)
    }

    /// The elements from `start` to `stop`, as in Python.
    fn slice<'a>(
        &mut self,
        data: &'a Value,
        start: Option<i32>,
        stop: Option<i32>,
        step: i32,
    ) -> Evaluated<'a> {
        let Some(list) = data.as_array() else {
            return Ok(Cow::Borrowed(&NULL));
        };
        let (length, step) = (list.len() as i64, i64::from(step));
        if step == 0 {
            return Err(FAILED);
        }
        let (first, last) = if step > 0 {
            (0, length)
        } else {
            (-1, length - 1)
        };
        let within = |end: Option<i32>, default: i64| {
            end.map_or(default, |end| {
                let end = i64::from(end);
                let end = if end < 0 { end + length } else { end };
                end.clamp(first, last)
            })
        };
        let (from, to) = if step > 0 {
            (first, last)
        } else {
            (last, first)
        };
        let (mut at, end) = (within(start, from), within(stop, to));
        let mut items = Vec::new();
        while if step > 0 { at < end } else { at > end } {
            let element = usize::try_from(at).ok().and_then(|at| list.get(at));
            items.push(self.copy(element.unwrap_or(&NULL))?);
            at += step;
        }
        self.array(items)
    }

    fn function<'a>(&mut self, data: &'a Value, name: &str, args: &'a [Ast]) -> Evaluated<'a> {
        match (name, args) {
            ("map", [Ast::Expref { ast, .. }, list]) => {
                let list = self.list(data, list)?;
                let mut items = Vec::with_capacity(list.len());
                for element in list.iter() {
                    let value = self.eval(element, ast)?;
                    items.push(self.owned(value)?);
                }
                return self.array(items);
            }
            ("sort_by" | "max_by" | "min_by", [list, Ast::Expref { ast, .. }]) => {
                let list = self.list(data, list)?;
                return self.by_key(name, &list, ast);
            }
            ("map" | "sort_by" | "max_by" | "min_by", [_, _]) => return Err(WRONG_TYPE),
            ("map" | "sort_by" | "max_by" | "min_by", _) => return Err(WRONG_COUNT),
            _ => {}
        }
        let function = self.runtime.get_function(name).ok_or(UNKNOWN_FUNCTION)?;
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            let value = self.eval(data, arg)?;
            values.push(self.owned(value)?);
        }
        let size: usize = values.iter().map(size_of).sum();
        self.take_steps(size / VALUE_OVERHEAD)?;
        let mut context = Context::new("", self.runtime);
        // The error's own message may quote the value.
        let result = function
            .evaluate(&values, &mut context)
            .map_err(|error| reason(&error.reason))?;
        self.take_bytes(size_of(&result))?;
        Ok(Cow::Owned(result))
    }

    /// The elements of an argument that must be a list.
    fn list<'a>(&mut self, data: &'a Value, arg: &'a Ast) -> Result<Cow<'a, [Value]>, Reason> {
        match self.eval(data, arg)? {
            Cow::Borrowed(Value::Array(items)) => Ok(Cow::Borrowed(items)),
            Cow::Owned(Value::Array(items)) => Ok(Cow::Owned(items)),
            _ => Err(WRONG_TYPE),
        }
    }

    /// `sort_by`, `max_by` and `min_by`: the keys must be all strings or all numbers.
    fn by_key<'a>(&mut self, name: &str, list: &[Value], ast: &Ast) -> Evaluated<'a> {
        let mut keyed: Vec<(Value, &Value)> = Vec::with_capacity(list.len());
        for element in list {
            let key = self.eval(element, ast)?;
            let key = self.owned(key)?;
            let first = keyed.first().map_or(&key, |(first, _)| first);
            let is_like_first = matches!(
                (&key, first),
                (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_))
            );
            if !is_like_first {
                return Err(WRONG_TYPE);
            }
            keyed.push((key, element));
        }
        // What a sort compares.
        self.take_steps(list.len() * (usize::BITS - list.len().leading_zeros()) as usize)?;
        let found = match name {
            "sort_by" => {
                keyed.sort_by(|(a, _), (b, _)| order(a, b));
                let mut items = Vec::with_capacity(keyed.len());
                for (_, element) in keyed {
                    items.push(self.copy(element)?);
                }
                return self.array(items);
            }
            // The first of equal ones.
            "max_by" => keyed.iter().reduce(|best, next| {
                if order(&next.0, &best.0).is_gt() {
                    next
                } else {
                    best
                }
            }),
            _ => keyed.iter().reduce(|best, next| {
                if order(&next.0, &best.0).is_lt() {
                    next
                } else {
                    best
                }
            }),
        };
        match found {
            Some((_, element)) => self.copy(element).map(Cow::Owned),
            None => Ok(Cow::Borrowed(&NULL)),
        }
    }
}

fn index(data: &Value, index: i32) -> &Value {
    let found = data.as_array().and_then(|list| {
        let distance = usize::try_from(index.unsigned_abs()).ok()?;
        if index >= 0 {
            list.get(distance)
        } else {
            list.get(list.len().checked_sub(distance)?)
        }
    });
    found.unwrap_or(&NULL)
}

fn order(a: &Value, b: &Value) -> Ordering {
    if a.compare(&Comparator::LessThan, b) == Some(true) {
        Ordering::Less
    } else if b.compare(&Comparator::LessThan, a) == Some(true) {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

fn reason(reason: &ErrorReason) -> Reason {
    match reason {
        ErrorReason::Runtime(RuntimeError::UnknownFunction(_)) => UNKNOWN_FUNCTION,
        ErrorReason::Runtime(
            RuntimeError::TooManyArguments { .. } | RuntimeError::NotEnoughArguments { .. },
        ) => WRONG_COUNT,
        ErrorReason::Runtime(
            RuntimeError::InvalidType { .. } | RuntimeError::InvalidReturnType { .. },
        ) => WRONG_TYPE,
        ErrorReason::Parse(text) if text == TOO_LARGE => TOO_LARGE,
        ErrorReason::Parse(text) if text == OUT_OF_RANGE => OUT_OF_RANGE,
        _ => FAILED,
    }
}

//! Bounds how often a JMESPath expression can copy its input.
//!
//! `[@,@]|[@,@]|…` doubles its input every six bytes: an expression within the length limit could exhaust
//! any memory, and a process that runs out of memory cannot return an error.

use jpx_core::ast::Ast;

/// Maximum number of copies of the secret that a result, also an intermediate one, may contain.
pub(super) const MAX_EXPANSION: u64 = 64;

/// Functions whose results may be larger than their arguments.
pub(super) const GROWING: [&str; 2] = ["join", "to_string"];
/// How much larger; a result that is larger is an error.
pub(super) const GROWTH: u64 = 2;

/// An upper bound of how many copies of the input any result within an expression contains; saturating.
pub(super) fn peak_expansion(ast: &Ast) -> u64 {
    let mut peak = 1;
    expand(ast, 1, &mut peak);
    peak
}

/// The copies in the result for an input of `input` copies. `peak` becomes the maximum of all results.
fn expand(ast: &Ast, input: u64, peak: &mut u64) -> u64 {
    let sum = |parts: &mut dyn Iterator<Item = &Ast>, peak: &mut u64| {
        let copies = parts.fold(0_u64, |all, part| {
            all.saturating_add(expand(part, input, peak))
        });
        copies.max(input)
    };
    let copies = match ast {
        Ast::Identity { .. }
        | Ast::Field { .. }
        | Ast::Index { .. }
        | Ast::Literal { .. }
        | Ast::Slice { .. } => input,
        // The result is a boolean, but its operands exist before.
        Ast::Comparison { lhs, rhs, .. } => {
            let operands = sum(&mut [&**lhs, &**rhs].into_iter(), peak);
            *peak = (*peak).max(operands);
            input
        }
        Ast::Not { node, .. } => {
            expand(node, input, peak);
            input
        }
        Ast::Expref { ast, .. } => expand(ast, input, peak),
        Ast::Flatten { node, .. } | Ast::ObjectValues { node, .. } => expand(node, input, peak),
        Ast::MultiList { elements, .. } => sum(&mut elements.iter(), peak),
        Ast::MultiHash { elements, .. } => sum(&mut elements.iter().map(|e| &e.value), peak),
        Ast::And { lhs, rhs, .. } | Ast::Or { lhs, rhs, .. } => {
            let lhs = expand(lhs, input, peak);
            let rhs = expand(rhs, input, peak);
            // Both may exist at the same time.
            *peak = (*peak).max(lhs.saturating_add(rhs));
            lhs.max(rhs)
        }
        Ast::Subexpr { lhs, rhs, .. } | Ast::Projection { lhs, rhs, .. } => {
            let lhs = expand(lhs, input, peak);
            expand(rhs, lhs, peak)
        }
        Ast::Condition {
            predicate, then, ..
        } => {
            expand(predicate, input, peak);
            expand(then, input, peak)
        }
        // `map(&expression, list)` and similar functions apply one argument to the others.
        Ast::Function { args, name, .. } => {
            let is_expression = |arg: &&Ast| matches!(arg, Ast::Expref { .. });
            let values = sum(&mut args.iter().filter(|arg| !is_expression(arg)), peak);
            let applied = args.iter().filter(is_expression);
            let most = applied.fold(values, |most, arg| most.max(expand(arg, values, peak)));
            if GROWING.contains(&name.as_str()) {
                most.saturating_mul(GROWTH)
            } else {
                most
            }
        }
    };
    *peak = (*peak).max(copies);
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(expression: &str) -> u64 {
        peak_expansion(jpx_core::compile(expression).unwrap().as_ast())
    }

    #[test]
    fn doubling_is_detected_in_every_form() {
        let doubled = ["[@,@]"; 7].join("|");
        for (expression, expected) in [
            ("a.b[0].c".to_owned(), 1),
            ("a || b".to_owned(), 2),
            ("[a, b, c]".to_owned(), 3),
            ("{a: @, b: @}".to_owned(), 2),
            ("list[?a > `1`].{n: name, p: port}".to_owned(), 2),
            ("[@,@]|[@,@]|[@,@]".to_owned(), 8),
            ("{a:@,b:@}.{a:@,b:@}".to_owned(), 4),
            ("map(&[@,@], [@,@])".to_owned(), 4),
            ("not_null(a, b)".to_owned(), 2),
            (format!("!({doubled})"), 128),
            (format!("({doubled}) == a"), 129),
            (format!("a == ({doubled})"), 129),
            (format!("a[?({doubled}) < `1`].b"), 129),
            (format!("a[?!({doubled})]"), 128),
            (format!("length({doubled})"), 128),
            (format!("{{a: !({doubled}), b: b}}"), 128),
            (format!("sort_by(@, &to_string({doubled}))"), 256),
            ("to_string([to_string([to_string(@)])])".to_owned(), 8),
            ("join(a, b)".to_owned(), 4),
            (format!("a && !({doubled})"), 128),
            (format!("({doubled})[0].a"), 128),
        ] {
            assert_eq!(of(&expression), expected, "{expression}");
        }
        assert!(of(&["[@,@]"; 85].join("|")) > u64::MAX / 2);
    }
}

//! Bounds how often a JMESPath expression can copy its input.
//!
//! `[@,@]|[@,@]|…` doubles its input every six bytes: an expression within the length limit could exhaust
//! any memory, and a process that runs out of memory cannot return an error.

use jpx_core::ast::Ast;

/// Maximum number of copies of the secret that a result may contain.
pub(super) const MAX_EXPANSION: u64 = 64;

/// An upper bound of how many copies of its input an expression's result contains; saturating.
pub(super) fn expansion_factor(ast: &Ast) -> u64 {
    let sum = |parts: &mut dyn Iterator<Item = u64>| {
        parts.fold(0_u64, |all, one| all.saturating_add(one)).max(1)
    };
    match ast {
        Ast::Comparison { .. }
        | Ast::Identity { .. }
        | Ast::Field { .. }
        | Ast::Index { .. }
        | Ast::Literal { .. }
        | Ast::Not { .. }
        | Ast::Slice { .. } => 1,
        Ast::Expref { ast, .. } => expansion_factor(ast),
        Ast::Flatten { node, .. } | Ast::ObjectValues { node, .. } => expansion_factor(node),
        Ast::MultiList { elements, .. } => sum(&mut elements.iter().map(expansion_factor)),
        Ast::MultiHash { elements, .. } => {
            sum(&mut elements.iter().map(|e| expansion_factor(&e.value)))
        }
        Ast::And { lhs, rhs, .. } | Ast::Or { lhs, rhs, .. } => {
            expansion_factor(lhs).max(expansion_factor(rhs))
        }
        Ast::Subexpr { lhs, rhs, .. } | Ast::Projection { lhs, rhs, .. } => {
            expansion_factor(lhs).saturating_mul(expansion_factor(rhs))
        }
        Ast::Condition {
            predicate, then, ..
        } => expansion_factor(predicate).saturating_mul(expansion_factor(then)),
        // `map(&expression, list)` and similar functions apply one argument to the other.
        Ast::Function { args, .. } => {
            if args.iter().any(|arg| matches!(arg, Ast::Expref { .. })) {
                args.iter()
                    .fold(1, |all: u64, arg| all.saturating_mul(expansion_factor(arg)))
            } else {
                sum(&mut args.iter().map(expansion_factor))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(expression: &str) -> u64 {
        expansion_factor(jpx_core::compile(expression).unwrap().as_ast())
    }

    #[test]
    fn doubling_is_detected_in_every_form() {
        for (expression, expected) in [
            ("a.b[0].c", 1),
            ("a || b || c", 1),
            ("[a, b, c]", 3),
            ("{a: @, b: @}", 2),
            ("list[?a > `1`].{n: name, p: port}", 2),
            ("[@,@]|[@,@]|[@,@]", 8),
            ("{a:@,b:@}.{a:@,b:@}", 4),
            ("map(&[@,@], [@,@])", 4),
            ("[@,@] && [@,@,@]", 3),
            ("not_null(a, b)", 2),
        ] {
            assert_eq!(of(expression), expected, "{expression}");
        }
        assert!(of(&["[@,@]"; 85].join("|")) > u64::MAX / 2);
    }
}

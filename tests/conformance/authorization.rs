//! Who may do what: names that try to widen a rule, wills, and what a flood of passwords does to others.

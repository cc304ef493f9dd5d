//! Conformance suites and fault wrappers for sources, targets and archives.

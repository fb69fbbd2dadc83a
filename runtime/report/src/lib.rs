//! cutover-report

//! cutover-journal

//! Folders and files with full fidelity, SQLite databases found inside copied consistently.

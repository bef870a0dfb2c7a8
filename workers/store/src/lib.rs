//! The only code that knows a Redis key or command; and its in-memory twin

//! Engine.IO v4 and Socket.IO v5 packets: parse, encode, limits. Pure: no I/O, no clock

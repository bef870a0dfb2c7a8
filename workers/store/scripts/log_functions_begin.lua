-- Functions are made anew at each call of a script: those up to `log_functions_end.lua` only where they are asked for.
local function log_functions()

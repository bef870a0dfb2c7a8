return head, trim, mark, trim_bytes
end

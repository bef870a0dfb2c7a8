return head, trim
end

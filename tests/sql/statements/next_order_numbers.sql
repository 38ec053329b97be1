-- next_order_numbers
SELECT nextval('order_number_seq') AS start;

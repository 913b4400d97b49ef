"""What a delivery is made of: its rows and names, its plan, the processes that make files, marks and signatures."""

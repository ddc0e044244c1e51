"""Weighted LoRA fine-tuning: one loss, one loop; plain SFT is the same code with weights one."""

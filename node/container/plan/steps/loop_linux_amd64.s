#include "textflag.h"

// loop is the code of a little program. It is never called: loopCode copies it.
// BX is the entry; its offsets are those of type entry.
TEXT ·loop(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ	$0x600000, BX // listAddress
next:
	MOVQ	56(BX), R12 // Indirect
	MOVQ	8(BX), DI
	MOVQ	16(BX), SI
	MOVQ	24(BX), DX
	MOVQ	32(BX), R10
	MOVQ	40(BX), R8
	MOVQ	48(BX), R9
	TESTQ	R12, R12
	JEQ	direct
	BTQ	$0, R12
	JCC	arg1
	MOVQ	(DI), DI
arg1:
	BTQ	$1, R12
	JCC	arg2
	MOVQ	(SI), SI
arg2:
	BTQ	$2, R12
	JCC	arg3
	MOVQ	(DX), DX
arg3:
	BTQ	$3, R12
	JCC	arg4
	MOVQ	(R10), R10
arg4:
	BTQ	$4, R12
	JCC	direct
	MOVQ	(R8), R8
direct:
	MOVQ	(BX), AX
	TESTQ	AX, AX
	JLT	operation
	SYSCALL
	CMPQ	AX, $-4095
	JCC	failed
done:
	MOVQ	112(BX), DX // Store
	TESTQ	DX, DX
	JEQ	checks
	MOVQ	AX, (DX)
checks:
	MOVQ	120(BX), DX // Check
	TESTQ	DX, DX
	JEQ	on
	CMPQ	DX, $2
	JEQ	some
	MOVQ	8(BX), DI // checkAbsolute
	MOVBLZX	(DI), CX
	CMPL	CX, $47 // a slash
	JEQ	on
	MOVQ	$-13, AX // EACCES
	JMP	failed
some:
	TESTQ	AX, AX
	JEQ	end
on:
	MOVQ	104(BX), BX // OK
	JMP	next
operation:
	CMPQ	AX, $-1
	JNE	unless
	MOVQ	DI, AX // opSet
	JMP	done
unless:
	TESTQ	DI, DI
	JNE	on
	MOVQ	96(BX), BX // Bad
	JMP	next
failed:
	NEGQ	AX
	MOVQ	80(BX), DX // Errors
	CMPQ	DX, $-1
	JEQ	bad
	CMPQ	DX, AX
	JEQ	bad
	CMPQ	AX, 88(BX)
	JEQ	bad
	MOVQ	64(BX), SI // Message
	MOVQ	72(BX), DX // Length
	MOVQ	AX, -16(SI)(DX*1)
	MOVQ	BX, -8(SI)(DX*1)
	MOVL	$1, AX // write
	MOVL	$3, DI // Control
	SYSCALL
end:
	MOVL	$231, AX // exit_group
	MOVL	$1, DI
	SYSCALL
bad:
	MOVQ	96(BX), BX // Bad
	JMP	next
	// The end, for loopCode: no instruction looks like this.
	BYTE $0x0f; BYTE $0x0b; BYTE $0x0f; BYTE $0x0b
	BYTE $0x0f; BYTE $0x0b; BYTE $0x0f; BYTE $0x0b

// func loopStart() *[maxLoop]byte
TEXT ·loopStart(SB), NOSPLIT, $0-8
	LEAQ	·loop(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

#include "textflag.h"

// entry is where the kernel starts a program that make has built, before anything of
// Go runs. What it changes, Go's first threads inherit, and begin takes it back for
// the thread that does the work:
//
// The watchdog, a thread that wakes every twenty microseconds, may wake later. It took
// a seventh of the program's processor time.
//
// The environment says that one processor is enough, which is cheaper than to give the
// others back.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0-0
	MOVL	$157, AX // prctl
	MOVL	$29, DI // PR_SET_TIMERSLACK
	MOVL	$10000000, SI // nanoseconds: see lazy
	SYSCALL
	// The count, argv and its end move down by one word, and make room for a variable.
	MOVQ	SP, SI
	SUBQ	$8, SP
	MOVQ	SP, DI
	MOVQ	(SI), CX
	ADDQ	$2, CX
	CLD
	REP; MOVSQ
	LEAQ	·oneProcessor(SB), AX
	MOVQ	AX, (DI)
	XORL	DX, DX
	JMP	_rt0_amd64_linux(SB)

DATA ·oneProcessor+0(SB)/8, $"GOMAXPRO"
DATA ·oneProcessor+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL ·oneProcessor(SB), RODATA|NOPTR, $16

// caught is what the kernel calls for a signal that is passed on: it writes the number
// into a pipe. It may come on any thread, between any two instructions, so it knows
// nothing of Go and touches nothing but registers, which the kernel gives back, and
// its stack, the thread's own for signals.
TEXT ·caught(SB), NOSPLIT|NOFRAME, $0-0
	PUSHQ	DI
	MOVL	$1, AX // write
	MOVL	·caughtPipe(SB), DI
	MOVQ	SP, SI
	MOVL	$1, DX
	SYSCALL
	POPQ	DI
	RET

// back is where caught returns to.
TEXT ·back(SB), NOSPLIT|NOFRAME, $0-0
	MOVL	$15, AX // rt_sigreturn
	SYSCALL
	INT	$3

// func handler() (catch, back uintptr)
TEXT ·handler(SB), NOSPLIT, $0-16
	LEAQ	·caught(SB), AX
	MOVQ	AX, catch+0(FP)
	LEAQ	·back(SB), AX
	MOVQ	AX, back+8(FP)
	RET

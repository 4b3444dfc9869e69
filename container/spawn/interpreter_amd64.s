#include "textflag.h"

// The layout of header and operations is documented at program.OpSize.
//
// Registers: R13 header of the image, R12 current operation. SYSCALL destroys CX and R11 only.

// func rawClone3(args unsafe.Pointer, size, code, image uintptr) (pid, errno uintptr)
//
// The system call itself is issued by the copied interpreter, because the child has no other code.
TEXT ·rawClone3(SB), NOSPLIT, $0-48
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	code+16(FP), R12
	MOVQ	image+24(FP), R13
	MOVL	$435, AX // clone3
	CALL	R12
	CMPQ	AX, $0xfffffffffffff001
	JCC	failed
	MOVQ	AX, pid+32(FP)
	MOVQ	$0, errno+40(FP)
	RET
failed:
	NEGQ	AX
	MOVQ	$0, pid+32(FP)
	MOVQ	AX, errno+40(FP)
	RET

// func copyInterpreter(to *[interpreterSize]byte)
TEXT ·copyInterpreter(SB), NOSPLIT, $0-8
	LEAQ	·interpreter(SB), SI
	MOVQ	to+0(FP), DI
	MOVQ	$768, CX // interpreterSize
	CLD
	REP; MOVSB
	RET

// interpreter issues the clone that its caller has prepared, returns in the parent, and in the
// child runs the operations of the image at R13. It is copied and run elsewhere: no call, no data
// outside of the image, relative jumps only. The child uses no stack.
TEXT ·interpreter(SB), NOSPLIT|NOFRAME, $0-0
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	RET
child:
	LEAQ	64(R13), R12
step:
	XORL	BX, BX
argument:
	MOVBLZX	2(R12)(BX*1), CX
	MOVQ	24(R12)(BX*8), AX
	CMPL	CX, $1
	JLT	argumentReady
	JEQ	load64
	CMPL	CX, $3
	JLT	load32
	JEQ	load16
	MOVBLZX	(AX), AX
	JMP	argumentReady
load16:
	MOVWLZX	(AX), AX
	JMP	argumentReady
load32:
	MOVL	(AX), AX
	JMP	argumentReady
load64:
	MOVQ	(AX), AX
argumentReady:
	MOVQ	AX, 16(R13)(BX*8)
	INCL	BX
	CMPL	BX, $6
	JLT	argument
	MOVBLZX	(R12), CX
	CMPL	CX, $1
	JLT	syscall
	JEQ	jump
	CMPL	CX, $2
	JEQ	alu
	MOVQ	16(R13), DX // Fail: errno, or a negative result
	TESTQ	DX, DX
	JGE	report
	NEGQ	DX
	JMP	report

syscall:
	MOVQ	16(R13), DI
	MOVQ	24(R13), SI
	MOVQ	32(R13), DX
	MOVQ	40(R13), R10
	MOVQ	48(R13), R8
	MOVQ	56(R13), R9
	MOVL	8(R12), AX
	SYSCALL
	CMPQ	AX, $0xfffffffffffff001
	JCC	syscallFailed
	MOVQ	72(R12), CX
	TESTQ	CX, CX
	JEQ	advance
	MOVQ	AX, (CX)
advance:
	ADDQ	$96, R12
	JMP	step

syscallFailed:
	MOVQ	AX, DX
	NEGQ	DX
	XORL	BX, BX
ignored:
	MOVWLZX	16(R12)(BX*2), CX
	CMPL	CX, DX
	JEQ	ignore
	INCL	BX
	CMPL	BX, $4
	JLT	ignored
	CMPL	DX, $4 // EINTR: again, unless it is in the list
	JEQ	syscall
report:
	MOVL	12(R12), CX
	MOVL	CX, 8(R13)
	MOVL	DX, 12(R13)
	MOVQ	(R13), DI
	LEAQ	8(R13), SI
	MOVL	$8, DX
	MOVL	$1, AX // write
	SYSCALL
exit:
	MOVL	$127, DI
	MOVL	$231, AX // exit_group
	SYSCALL
	JMP	exit
ignore:
	MOVQ	72(R12), CX
	TESTQ	CX, CX
	JEQ	onError
	MOVQ	AX, (CX)
onError:
	MOVQ	80(R12), R12
	JMP	step

jump:
	MOVQ	16(R13), AX
	ANDQ	24(R13), AX
	MOVQ	32(R13), DX
	MOVBLZX	1(R12), CX
	CMPL	CX, $1
	JLT	equal
	JEQ	notEqual
	CMPL	CX, $2
	JEQ	less
	CMPQ	AX, DX
	JGE	taken
	JMP	advance
less:
	CMPQ	AX, DX
	JLT	taken
	JMP	advance
notEqual:
	CMPQ	AX, DX
	JNE	taken
	JMP	advance
equal:
	CMPQ	AX, DX
	JNE	advance
taken:
	MOVQ	88(R12), R12
	JMP	step

alu:
	MOVQ	16(R13), AX
	MOVQ	24(R13), CX
	MOVBLZX	1(R12), BX
	CMPL	BX, $5
	JLT	computed // move
	JEQ	add
	CMPL	BX, $7
	JLT	sub
	JEQ	and
	CMPL	BX, $9
	JLT	or
	JEQ	shiftLeft
	SHRQ	CX, AX
	JMP	computed
add:
	ADDQ	CX, AX
	JMP	computed
sub:
	SUBQ	CX, AX
	JMP	computed
and:
	ANDQ	CX, AX
	JMP	computed
or:
	ORQ	CX, AX
	JMP	computed
shiftLeft:
	SHLQ	CX, AX
computed:
	MOVQ	72(R12), CX
	MOVQ	AX, (CX)
	JMP	advance
	BYTE $0x73; BYTE $0x74; BYTE $0x72; BYTE $0x61; BYTE $0x6b; BYTE $0x65; BYTE $0x2e; BYTE $0x00
